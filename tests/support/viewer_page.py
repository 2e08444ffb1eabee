"""Drive the viewer's page in a browser by keys and clicks."""

from typing import Any

EVIL = "<img src=x onerror=\"document.title='owned'\"> & </script>"
SCREEN = {"width": 1366, "height": 768}


class Page:
    """A viewer in a browser tab."""

    def __init__(self, browser: Any, address: str):
        self.address, self.errors = address, []
        self.tab = browser.new_page(viewport=SCREEN)
        self.tab.set_default_timeout(60_000)
        self.tab.on("pageerror", lambda error: self.errors.append(str(error)))
        self.tab.on("console", lambda line: self.errors.append(line.text) if line.type == "error" else None)

    def open(self, state: str) -> None:
        """Load the page from scratch, with `state` in its address."""
        self.tab.mouse.move(0, 0)
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
        """The state in the address."""
        return dict(self.tab.evaluate("[...new URLSearchParams(location.hash.slice(1))]"))

    def text(self, selector: str) -> str:
        return self.tab.inner_text(selector)

    def texts(self, selector: str) -> list[str]:
        return self.tab.locator(selector).all_inner_texts()

    def panel(self, name: str) -> str:
        """The CSS selector of a result's panel."""
        return f".panel[data-id='{name}']"

    def pixels(self, name: str) -> list[list[int]]:
        """The RGB values of a panel's pixels, row by row."""
        flat = self.tab.evaluate(
            "selector => { const c = document.querySelector(selector);"
            " return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data] }",
            f"{self.panel(name)} canvas",
        )
        return [flat[i : i + 3] for i in range(0, len(flat), 4)]
