"""Settings of the nights: model, val, limits of data and of promotion, alerts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from conf.fields import require, require_name

RULES = ("better", "not_worse")  # tasks/registry/gate.py
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HOST = re.compile(r"[A-Za-z0-9.-]+(:\d{1,5})?")


@dataclass
class Email:
    """E-mail by SMTP. With the variables EFFNET_SMTP_USER and EFFNET_SMTP_PASSWORD it logs in, over TLS only."""

    host: str | None = None  # Server, HOST or HOST:PORT (default 25; 465 is TLS from the start); null = no e-mail.
    sender: str = ""  # Address that the e-mail is from.
    to: list[str] = field(default_factory=list)  # Addresses of the recipients.

    def __post_init__(self) -> None:
        require(
            self.host is None or bool(_HOST.fullmatch(self.host)),
            f"nightly.alerts.email.host must be HOST or HOST:PORT, is {self.host!r}",
        )
        for address in [self.sender, *self.to]:
            require(
                not address or ("@" in address and address.isprintable() and " " not in address),
                f"nightly.alerts.email: {address!r} is not an e-mail address",
            )
        require(
            self.host is None or bool(self.sender and self.to),
            "nightly.alerts.email.host needs nightly.alerts.email.sender and nightly.alerts.email.to",
        )


@dataclass
class Alerts:
    """Where a night is reported that failed, diverged, was refused, waits, started late, or was skipped three times."""

    # URL that takes a POST of {"text": ...} as Slack does, or the name of an environment variable that holds it, since
    # such a URL often is a secret.
    webhook: str | None = None
    email: Email = field(default_factory=Email)  # E-mail.
    # URL that every night calls, or the name of a variable that holds it: URL/start, then URL, or URL/fail after an
    # error, as healthchecks.io takes it. A service that expects these calls notices a night that never started.
    heartbeat: str | None = None
    late_minutes: float = 60.0  # Minutes after its scheduled time from which on a night has started late.

    def __post_init__(self) -> None:
        for key in ("webhook", "heartbeat"):
            value: str | None = getattr(self, key)
            require(
                value is None or value.startswith(("http://", "https://")) or bool(_VARIABLE.fullmatch(value)),
                f"nightly.alerts.{key} must be an http(s) URL or the name of a variable, is {value!r}",
            )
        require(self.late_minutes > 0, f"nightly.alerts.late_minutes must be > 0, is {self.late_minutes}")


@dataclass
class Nightly:
    """The scheduled fine-tuning of the registered champion; the option `--schedule` sets its hour."""

    model: str = "efficientnet-b0"  # Registered model whose champion is fine-tuned.
    # Name of the val of a folder, which the first night of this name freezes, whatever is added later. Another name
    # takes a new val with what was added, and starts another line of champions.
    val: str = "first"
    # Rule by which a version replaces the champion, here and in reproduce: better (the 95 % lower bound of the paired
    # difference on val is above 0) | not_worse (it is above -margin, so that an equal model of newer data replaces it).
    rule: str = "better"
    # Tolerance in points of rule=not_worse; by both rules a version whose 95 % upper bound is below -margin is refused.
    margin: float = 0.3
    # Points by which the accuracy of a class may drop; classes with fewer than 50 images, and drops that may be chance,
    # do not count.
    class_margin: float = 5.0
    # Points by which a version must exceed the share of the most frequent class of val, the first one of a model too;
    # -100 accepts any accuracy.
    chance_margin: float = 5.0
    # Points by which the expected calibration error on val may exceed the champion's; an excess that may be chance does
    # not count.
    calibration_margin: float = 5.0
    # Milliseconds that one image may take on this machine's CPU; null = any. A night that measures more beside other
    # work refuses nothing, and measures again.
    max_latency_ms: float | None = None
    # Times as long as with the champion that one image may take, both measured in turns in one process; null = any.
    max_latency_ratio: float | None = 1.5
    max_size_mb: float | None = None  # Megabytes (10^6 bytes) that the weights may have; null = any.
    # Days for which no new images may come without an alert; the night runs nevertheless; null = no alert.
    max_age_days: float | None = None
    # Percent by which the number of images of train or of val may fall below that of the champion's data.
    max_shrink: float = 10.0
    max_psi: float = 0.2  # Population stability index of the classes' shares, against those of the champion's data.
    max_duplicates: int = 0  # Images of train that may be in val too.
    # Percent of the images that may not decode; ten never are too many, as for effnet shard, which refuses 1 percent.
    max_quarantine: float = 0.1
    # Points by which the champion's accuracy on new images of transfer.data.append may be below its accuracy on val, as
    # with many wrong labels; a drop that may be chance does not count; 100 = any, and it is not measured.
    max_label_drop: float = 20.0
    # Images that must have come since the champion was trained, for a night to compare it with the champion before on
    # them: one that is worse by margin or class_margin, and not by chance, is taken back; null = never.
    watch_images: int | None = 100
    # Whether a version that passed the gate waits for effnet promote, here and in reproduce, instead of being promoted.
    approval: bool = False
    approval_days: float = 7.0  # Days after which a version that nobody promoted is refused, by the next night.
    alerts: Alerts = field(default_factory=Alerts)  # Where a night that needs attention is reported.

    def __post_init__(self) -> None:
        require(self.rule in RULES, f"nightly.rule must be {' or '.join(RULES)}, is {self.rule!r}")
        for key, least in (("margin", 0), ("class_margin", 0), ("calibration_margin", 0), ("chance_margin", -100)):
            value = getattr(self, key)
            require(least <= value <= 100, f"nightly.{key} must be in {least}..100 points, is {value}")
        for key in ("max_shrink", "max_quarantine"):
            value = getattr(self, key)
            require(0 <= value <= 100, f"nightly.{key} must be in 0..100 percent, is {value}")
        require(0 < self.max_label_drop <= 100, f"nightly.max_label_drop must be in (0, 100], is {self.max_label_drop}")
        for key in ("max_latency_ms", "max_latency_ratio", "max_size_mb", "max_age_days"):
            value = getattr(self, key)
            require(value is None or value > 0, f"nightly.{key} must be > 0, is {value}")
        require(
            self.watch_images is None or self.watch_images > 0,
            f"nightly.watch_images must be > 0, is {self.watch_images}",
        )
        require(self.approval_days > 0, f"nightly.approval_days must be > 0, is {self.approval_days}")
        require(self.max_psi >= 0, f"nightly.max_psi must be >= 0, is {self.max_psi}")
        require(self.max_duplicates >= 0, f"nightly.max_duplicates must be >= 0, is {self.max_duplicates}")
        require_name("nightly.model", self.model)
        require_name("nightly.val", self.val)


FIRST_VAL, DEFAULT_MODEL = Nightly.val, Nightly.model
