"""The viewer's page, driven as by a person."""

from typing import Any

EVIL = "<img src=x onerror=\"document.title='owned'\"> & </script>"


class Page:
    """A viewer in a browser, as a person sees it."""

    def __init__(self, browser: Any, address: str, size: tuple[int, int] = (1366, 768)):
        self.address, self.errors = address, []
        self.tab = browser.new_page(viewport={"width": size[0], "height": size[1]})
        self.tab.set_default_timeout(60_000)
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        self.open("")

    def open(self, state: str) -> None:
        """Open the page anew with a state in its address."""
        self.tab.goto("about:blank")
        self.tab.goto(f"{self.address}#{state}")
        self.settle()

    def settle(self) -> None:
        self.tab.wait_for_selector("body[data-ready=true]")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.tab.keyboard.press(key)
            self.settle()

    def click(self, selector: str, **options: Any) -> None:
        self.tab.click(selector, **options)
        self.settle()

    def state(self) -> dict[str, str]:
        """What the address holds."""
        return dict(self.tab.evaluate("[...new URLSearchParams(location.hash.slice(1))]"))

    def text(self, selector: str) -> str:
        return self.tab.inner_text(selector)

    def texts(self, selector: str) -> list[str]:
        return self.tab.locator(selector).all_inner_texts()

    def panel(self, name: str) -> str:
        """The selector of a result's panel."""
        return f".panel[data-id='{name}']"

    def pixels(self, name: str) -> list[list[int]]:
        """The red, green and blue of each pixel of a panel, row by row."""
        flat = self.tab.evaluate(
            "selector => { const c = document.querySelector(selector);"
            " return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data] }",
            f"{self.panel(name)} canvas",
        )
        return [flat[i : i + 3] for i in range(0, len(flat), 4)]
