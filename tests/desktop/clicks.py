"""What people do with virt-manager, clicked through by AT-SPI, inside a sandbox, in a session with X and D-Bus.

clicks.py SCREENSHOT create NAME    makes a guest on network loopnet by hand, with the New VM wizard
clicks.py SCREENSHOT address MAC    prints what the open details of a guest say of a NIC's address
The screenshot is for people to look at; that of the address is cropped to what the README shows.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any, Callable, Iterator

import gi

gi.require_version("Atspi", "2.0")
from gi.repository import Atspi  # noqa: E402

PATIENCE = 40.0
TITLE, MARGIN = 24, 12
"""Pixels: of the window manager's title above a window; to the right of what matters."""
NETWORK = "Virtual network 'loopnet' : Open network"


def main(screenshot: str, what: str, which: str) -> None:
    {"create": create, "address": address}[what](screenshot, which)


def address(screenshot: str, mac: str) -> None:
    cell = find("table cell", f"NIC :{mac[-8:]}")
    extents = Atspi.Component.get_extents(cell, Atspi.CoordType.SCREEN)
    xdotool(
        "mousemove", str(extents.x + extents.width // 2), str(extents.y + extents.height // 2), "click", "1"
    )
    find("label", "IP address:")
    found = wait(addresses, "address")
    photograph(screenshot, what_matters(cell, found[0]))
    print(*(label.get_name() for label in found))


def addresses() -> list[Any]:
    return [label for label in shown("label", "") if label.get_name().count(".") == 3]


def what_matters(cell: Any, label: Any) -> str:
    """The part of the screen that the README shows: a window from its title to the network and down to a label."""
    window = cell
    while window.get_role_name() != "frame":
        window = window.get_parent()
    widgets = (window, find("combo box", "net-source"), label)
    around, right, last = (Atspi.Component.get_extents(each, Atspi.CoordType.SCREEN) for each in widgets)
    top = max(0, around.y - TITLE)
    width, height = right.x + right.width + MARGIN - around.x, last.y + last.height - top
    return f"{width}x{height}+{around.x}+{top}"


def create(screenshot: str, name: str) -> None:
    press("radio button", "Manual install")
    press("push button", "Forward")
    # Only what is typed opens the list of systems.
    Atspi.Component.grab_focus(find("text", "oslist-entry"))
    xdotool("type", "--delay", "50", "Generic")
    find("table cell", "Generic Linux 2022")
    wait(lambda: len(list(shown("table cell", ""))) == 2, "short list")
    for _ in range(5):  # keys are lost on what is not drawn yet
        time.sleep(2)
        xdotool("key", "Down", "Return")
        if not any(shown("panel", "oslist-popover")):
            break
    press("push button", "Forward")
    find("spin button", "cpus")
    for field, value in zip(list(shown("spin button", "")), (1, 128)):  # CPUs, MiB
        Atspi.Value.set_current_value(field, value)
    press("push button", "Forward")
    press("check box", "Enable storage")
    press("push button", "Forward")
    find("label", "Ready to begin")
    Atspi.EditableText.set_text_contents(next(shown("text", "")), name)
    # Open already where libvirt's own network is inactive.
    if not any(shown("combo box", "net-source")):
        press("toggle button", "Network selection")
    press("combo box", "net-source")
    press("menu item", NETWORK)
    wait(lambda: find("combo box", "net-source").get_name() == "net-source", "choice")
    time.sleep(1)  # until it is drawn
    photograph(screenshot)
    press("push button", "Finish")


def press(role: str, name: str) -> None:
    """Does what a click would."""
    Atspi.Action.do_action(find(role, name), 0)


def find(role: str, name: str) -> Any:
    """The first widget of that role whose name begins so, once it is there to be used."""
    return wait(lambda: next(shown(role, name), None), f"{role} {name!r}")


def shown(role: str, name: str) -> Iterator[Any]:
    desktop = Atspi.get_desktop(0)
    for index in range(desktop.get_child_count()):
        application = desktop.get_child_at_index(index)
        if application is not None:
            for widget in below(application):
                if widget.get_role_name() == role and (widget.get_name() or "").startswith(name):
                    states = widget.get_state_set()
                    if states.contains(Atspi.StateType.SHOWING) and states.contains(
                        Atspi.StateType.SENSITIVE
                    ):
                        yield widget


def below(widget: Any) -> Iterator[Any]:
    yield widget
    for index in range(widget.get_child_count()):
        child = widget.get_child_at_index(index)
        if child is not None:
            yield from below(child)


def wait(condition: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            found = condition()
        except gi.repository.GLib.Error:  # a widget went away meanwhile
            found = None
        if found:
            time.sleep(0.3)  # for its handlers
            return found
        if time.monotonic() > end:
            photograph(sys.argv[1])
            sys.exit(f"virt-manager: no {what} after {PATIENCE:g} s")
        time.sleep(0.2)


def photograph(path: str, part: str = "") -> None:
    """The screen, or a part of it, in few colours: such pictures are a tenth of the size."""
    crop = ["-crop", part, "+repage"] if part else []
    small = ["+dither", "-colors", "64", "-strip", f"png8:{path}"]
    subprocess.run(["import", "-window", "root", *crop, *small], check=True, timeout=20)


def xdotool(*arguments: str) -> None:
    subprocess.run(["xdotool", *arguments], check=True, timeout=20)


if __name__ == "__main__":
    main(*sys.argv[1:])
