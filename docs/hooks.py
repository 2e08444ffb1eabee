"""MkDocs hooks: pages that are generated from the code, and links from the documentation to files of the repository.

The command reference comes from the Typer app, the settings reference from the config's JSON schema; neither imports PyTorch.
Pages outside docs/ (CHANGELOG.md, CONTRIBUTING.md, benchmarks/*.md) become pages of the site. Every other repository file that
a page links to gets a page with its text, so that links work both on the site and in a checkout.
"""

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(\]\()([^)#:\s]+)((?:#[^)\s]*)?\))")
MOVED = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "README.md": "index.md"}
LANGUAGES = {".py": "python", ".yaml": "yaml", ".sh": "bash", ".csv": "text", ".md": "markdown", ".ipynb": "json"}


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Add the pages that have no file in docs/."""
    from mkdocs.structure.files import File

    pages = {site_path(path.relative_to(ROOT).as_posix()): path.read_text() for path in pages_outside()}
    pages |= {"reference/commands.md": commands_page(), "reference/settings.md": settings_page()}
    for uri, text in pages.items():
        files.append(File.generated(config, uri, content=text))
    for path in sorted(linked_files(files)):
        files.append(File.generated(config, site_path(path), content=source_page(path)))
    return files


def on_page_markdown(markdown: str, page: "Page", config: "MkDocsConfig", files: "Files") -> str:
    """Point links at the pages that stand for files of the repository."""

    def rewritten(match: re.Match[str]) -> str:
        target = repository_path(page.file.src_uri, match[2])
        relative = posixpath.relpath(site_path(target), posixpath.dirname(page.file.src_uri))
        return f"{match[1]}{relative}{match[3]}"

    return markdown if page.file.src_uri.startswith("source/") else LINK.sub(rewritten, markdown)


def pages_outside() -> list[Path]:
    return [ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "benchmarks").glob("*.md"))]


def site_path(path: str) -> str:
    """The page of the site for a file of the repository."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.startswith("benchmarks/") and path.endswith(".md"):
        return path
    return MOVED.get(path) or f"source/{path}.md"


def repository_path(page: str, link: str) -> str:
    """The file of the repository that a link on a page of the site names."""
    moved = {uri: path for path, uri in MOVED.items() if path != "README.md"}
    home = moved.get(page) or (page if page.startswith("benchmarks/") else f"docs/{page}")
    return posixpath.normpath(posixpath.join(posixpath.dirname(home), link))


def linked_files(files: "Files") -> set[str]:
    """Files of the repository that pages link to and that are no pages themselves."""
    found = set()
    for file in files.documentation_pages():
        for _, link, _ in LINK.findall(file.content_string):
            path = repository_path(file.src_uri, link)
            if site_path(path).startswith("source/") and (ROOT / path).is_file():
                found.add(path)
    return found


def source_page(path: str) -> str:
    text = (ROOT / path).read_text()
    return f"# {path}\n\n````{LANGUAGES.get(Path(path).suffix, 'text')}\n{text}\n````\n"


# -- commands ---------------------------------------------------------------------------------------------------------------


def commands_page() -> str:
    """Every command with its help, arguments and options, in the groups of `tiekd --help`, from the Typer app."""
    from tiekd.__main__ import GROUPS, build_command

    app = build_command()
    lines = ["# Commands", "", app.help or "", "", *options_table(app.params, app.context_class(app, info_name="tiekd"))]
    others = [name for name in app.commands if not any(name in names for names in GROUPS.values())]
    for title, names in [*GROUPS.items(), *([("More", others)] if others else [])]:
        lines += [f"## {title}", ""]
        for name in names:
            for full, command in leaf_commands(f"tiekd {name}", app.commands[name]):
                lines += command_section(full, command)
    return "\n".join(lines)


def leaf_commands(name: str, command: Any) -> list[tuple[str, Any]]:
    """A command, or the commands of a group."""
    if not hasattr(command, "commands"):
        return [(name, command)]
    return [leaf for sub, inner in command.commands.items() for leaf in leaf_commands(f"{name} {sub}", inner)]


def command_section(name: str, command: Any) -> list[str]:
    context = command.context_class(command, info_name=name)
    usage = " ".join([name, *command.collect_usage_pieces(context)])
    lines = [f"### `{name}`", "", "```text", usage, "```", ""]
    for paragraph in (command.help or "").split("\n\n"):
        start, _, example = paragraph.partition("Example:")
        text = " ".join((example or start).split())
        lines += ["```bash", text, "```", ""] if example else [text, ""]
    return lines + options_table(command.params, context)


def options_table(parameters: Any, context: Any) -> list[str]:
    """A row for each argument and option but --help."""
    records = [parameter.get_help_record(context) for parameter in parameters if "--help" not in parameter.opts]
    rows = [f"| {code(record[0])} | {escaped(record[1])} |" for record in records if record]
    return ["| option | meaning |", "|---|---|", *rows, ""] if rows else []


def code(text: str) -> str:
    return "`" + " ".join(text.split()).replace("|", "\\|") + "`"


def escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("[", "\\[").replace("<", "&lt;")


# -- settings ---------------------------------------------------------------------------------------------------------------


def settings_page() -> str:
    """Every setting of a run's config with its type, default and meaning, from the JSON schema."""
    from tiekd.config import RunConfig

    schema = RunConfig.model_json_schema()
    lines = [
        "# Settings",
        "",
        "Every setting of a run's YAML document. A setting that the document leaves out comes from the defaults of the data",
        "set, student and loss that it names, and otherwise from the column *default*. On the command line:",
        "`--set SECTION.NAME=VALUE`.",
        "",
    ]
    single = {}
    for name, described in schema["properties"].items():
        section = section_of(described, schema)
        if section is None:
            single[name] = described
            continue
        lines += section_lines(name, section, schema)
    return "\n".join([*lines, "## Other", "", *settings_table(single, schema)])


def section_lines(path: str, section: dict, schema: dict) -> list[str]:
    """A section's settings, and below them those of the sections in it."""
    inner = {name: found for name, described in section["properties"].items() if (found := section_of(described, schema))}
    plain = {name: described for name, described in section["properties"].items() if name not in inner}
    lines = [f"## `{path}`", "", section.get("description", ""), "", *settings_table(plain, schema)]
    for name, found in inner.items():
        lines += section_lines(f"{path}.{name}", found, schema)
    return lines


def section_of(described: dict, schema: dict) -> dict | None:
    choices = [described, *described.get("anyOf", ())]
    choices += [named for choice in choices for named in choice.get("patternProperties", {}).values()]  # sections by name
    reference = next((d["$ref"] for d in choices if "$ref" in d), None)
    return schema["$defs"][reference.rpartition("/")[2]] if reference else None


def settings_table(properties: dict, schema: dict) -> list[str]:
    lines = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    for name, described in properties.items():
        default = described.get("default")
        shown = "" if default is None else f"`{str(default).lower() if isinstance(default, bool) else default}`"
        lines.append(f"| `{name}` | {type_of(described)} | {shown} | {escaped(described.get('description', ''))} |")
    return [*lines, ""]


def type_of(described: dict) -> str:
    """A JSON schema's type in words, with its bounds."""
    if "enum" in described:
        return ", ".join(f"`{value}`" for value in described["enum"])
    if "const" in described:
        return f"`{described['const']}`"
    if "anyOf" in described:
        return " or ".join(type_of(choice) for choice in described["anyOf"] if choice.get("type") != "null")
    if described.get("type") == "array":
        items = described.get("prefixItems")
        return f"{len(items)} x {type_of(items[0])}" if items else f"list of {type_of(described['items'])}"
    bounds = {"minimum": "≥", "exclusiveMinimum": "&gt;", "maximum": "≤", "exclusiveMaximum": "&lt;"}
    return " ".join(
        [described.get("type", ""), *(f"{sign} {described[key]:g}" for key, sign in bounds.items() if key in described)]
    )
