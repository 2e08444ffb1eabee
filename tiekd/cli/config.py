"""`tiekd config show` and `tiekd config schema`."""

from typing import Annotated

import typer
import yaml

from tiekd.cli.options import ConfigArgument, JsonOption, SetOption
from tiekd.cli.packaged import find_run_config, plugins
from tiekd.errors import UserError, unknown
from tiekd.store.files import json_text

app = typer.Typer(help="Show a config with all its defaults, or its JSON schema.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def show(config: ConfigArgument, overrides: SetOption = [], as_json: JsonOption = False) -> None:  # noqa: B006
    """Print a run config with every setting that it leaves out filled in.

    Example: tiekd config show debug --set loss.sigma=0.8
    """
    from tiekd.config import load_config

    document = load_config(find_run_config(config), overrides).document()
    print(json_text(document) if as_json else yaml.safe_dump(document, sort_keys=False).rstrip())


@app.command()
def schema(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="run, study or space")] = "run",
) -> None:
    """Print the JSON schema of a document, with which editors complete and check YAML.

    Example: tiekd config schema study > study.schema.json
    """
    from tiekd.config import RunConfig

    models = {"run": RunConfig} | dict(plugins("tiekd.schemas"))
    if kind not in models:
        raise UserError(unknown("kind of document", kind, models))
    print(json_text(models[kind].model_json_schema(), indent=2))
