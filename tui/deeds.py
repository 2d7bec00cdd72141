"""What a person can have done: which request it is, and what is said of it. Pure."""

from dataclasses import dataclass
from typing import Literal

from heliosctl.client import quoted

Verb = Literal["load", "wake", "sleep", "stop", "pin", "unpin", "drain", "undrain"]
VERBS: tuple[Verb, ...] = ("load", "wake", "sleep", "stop", "pin", "unpin", "drain", "undrain")

_DONE: dict[Verb, str] = {
    "load": "is ready",
    "wake": "is awake",
    "sleep": "sleeps",
    "stop": "has stopped",
    "pin": "is kept ready",
    "unpin": "is treated like any other",
    "drain": "is drained: nothing starts there until it is undrained",
    "undrain": "is in service again",
}
_DOING: dict[Verb, str] = {
    "load": "loading",
    "wake": "waking",
    "sleep": "putting to sleep",
    "stop": "stopping",
    "pin": "pinning",
    "unpin": "unpinning",
    "drain": "draining",
    "undrain": "taking into service again",
}


@dataclass(frozen=True, slots=True)
class Deed:
    """One request to the admin API."""

    verb: Verb
    subject: str
    """A model or a replica; of a drain, and of its end, a device."""
    method: str
    path: str
    body: object = None

    @property
    def done(self) -> str:
        return f"{self.subject} {_DONE[self.verb]}"

    @property
    def doing(self) -> str:
        return f"{_DOING[self.verb]} {self.subject} …"


def deed(verb: Verb, subject: str) -> Deed:
    """The request that does it."""
    match verb:
        case "load" | "wake":
            return Deed(verb, subject, "POST", "/helios/v1/replicas", {"model": subject})
        case "sleep":
            return Deed(verb, subject, "POST", f"/helios/v1/sleep/{quoted(subject)}")
        case "stop":
            return Deed(verb, subject, "DELETE", f"/helios/v1/replicas/{quoted(subject)}")
        case "drain":
            return Deed(verb, subject, "POST", "/helios/v1/drain", {"device": subject})
        case "undrain":
            return Deed(verb, subject, "DELETE", f"/helios/v1/drain?device={quoted(subject)}")
        case "pin":
            return Deed(verb, subject, "PUT", f"/helios/v1/pins/{quoted(subject)}", {"replicas": 1})
        case "unpin":
            return Deed(verb, subject, "DELETE", f"/helios/v1/pins/{quoted(subject)}")
