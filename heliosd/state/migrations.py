"""The tables, and how each version of them became the next. Steps are only ever added."""

import sqlite_utils
from sqlite_utils import Database, Migrations

steps = Migrations("helios")


@steps()
def first_tables(db: Database) -> None:
    db.table("blobs").create({"digest": str, "size_bytes": int, "created_at": float}, pk="digest")
    db.table("revisions").create(
        {
            "id": str,  # the manifest's digest
            "manifest": str,  # JSON: [[path, digest, size_bytes], …]
            "source": str,  # JSON: where it came from
            "size_bytes": int,
            "created_at": float,
        },
        pk="id",
        not_null={"manifest", "source"},
    )
    db.table("refs").create(
        {"name": str, "label": str, "revision": str, "updated_at": float},
        pk=("name", "label"),
        foreign_keys=[("revision", "revisions", "id")],
    )
    db.table("aliases").create({"alias": str, "name": str, "label": str}, pk="alias")
    db.table("journal").create(
        {
            "id": int,
            "at": float,  # seconds since the epoch
            "kind": str,
            "ticket": str,
            "model": str,
            "replica": str,
            "message": str,
            "detail": str,  # JSON
        },
        pk="id",
    )
    for column in ("ticket", "model", "replica"):
        db.table("journal").create_index([column])
    db.table("measurements").create(
        {
            "id": int,
            "at": float,
            "model": str,
            "revision": str,
            "engine": str,
            "device_kind": str,
            "predicted": str,  # JSON: a footprint
            "measured": str,  # JSON: a footprint
            "phases": str,  # JSON: {phase: seconds}
        },
        pk="id",
    )
    db.table("measurements").create_index(["revision", "engine", "device_kind"])
    db.table("keys").create(
        {"id": str, "name": str, "hash": str, "admin": int, "created_at": float},
        pk="id",
        not_null={"name", "hash"},
    )
    db.table("keys").create_index(["hash"], unique=True)
    db.table("keys").create_index(["name"], unique=True)


@steps()
def arguments_of_measurements(db: Database) -> None:
    # JSON: what was set when it was measured. Nobody knows it for older rows, so they match nothing.
    db.table("measurements").add_column("arguments", str)


@steps()
def loads_to_learn_from(db: Database) -> None:
    # Older rows have none of this: they tell of their own revision only.
    table = db.table("measurements")
    table.add_column("likely", str)  # JSON: a footprint, what was thought likeliest
    table.add_column("architecture", str)
    table.add_column("device_name", str)
    table.add_column("tensor_parallel", int)
    table.add_column("law", str)  # JSON: {term: bytes}, before any correction
    table.add_column("law_of", str)  # the version of Helios whose law it was
    table.add_column("features", str)  # JSON: {name: number}


@steps()
def pins(db: Database) -> None:
    db.table("pins").create({"model": str, "replicas": int, "created_at": float}, pk="model")


@steps()
def bases_of_adapters(db: Database) -> None:
    db.table("refs").add_column("base", str)  # the ref of the model that an adapter is for; null: a whole model


@steps()
def terms_of_keys(db: Database) -> None:
    table = db.table("keys")
    table.add_column("priority", str, not_null_default="normal")
    table.add_column("share", float, not_null_default=1.0)


@steps()
def usage_of_models(db: Database) -> None:
    db.table("usage").create(
        {
            "model": str,
            "asked_at": float,  # seconds since the epoch
            "known": str,  # JSON: the other fields of core.remembered.Remembered
        },
        pk="model",
        not_null={"asked_at", "known"},
    )
    db.table("usage").create_index(["asked_at"])


@steps()
def recipes(db: Database) -> None:
    db.table("recipes").create(
        {
            "digest": str,  # of the whole file
            "size_bytes": int,
            "pieces": str,  # JSON: [[blob, offset, size_bytes], …]
            "created_at": float,
        },
        pk="digest",
        not_null={"size_bytes", "pieces"},
    )
    db.table("compared").create({"digest": str}, pk="digest")  # files that were compared with all older ones
    db.table("extents").create({"digest": str}, pk="digest")  # blobs that share blocks on the disk with others


@steps()
def timelines_of_starts(db: Database) -> None:
    # JSON: [[phase, begin, end, within], …] in seconds since the decision. Older rows have only `phases`.
    db.table("measurements").add_column("timeline", str)


@steps()
def tier_wishes(db: Database) -> None:
    db.table("tier_wishes").create(
        {"model": str, "tier": str, "created_at": float}, pk="model", not_null={"tier", "created_at"}
    )


@steps()
def speeds_of_storage(db: Database) -> None:
    db.table("storage_speeds").create(
        {"method": str, "cold_bytes_per_s": float, "warm_bytes_per_s": float, "note": str, "at": float}, pk="method"
    )


@steps()
def history_of_refs(db: Database) -> None:
    db.table("history").create(
        {
            "id": int,  # a later one is the newer
            "name": str,
            "label": str,
            "revision": str,
            "at": float,  # seconds since the epoch: when the ref began to mean it
            "why": str,
            "base": str,  # as in refs
        },
        pk="id",
        not_null={"name", "label", "revision", "at", "why"},
        foreign_keys=[("revision", "revisions", "id")],
    )
    db.table("history").create_index(["name", "label"])
    db.table("history").create_index(["revision"])
    db.execute(
        "insert into history (name, label, revision, at, why, base)"
        " select name, label, revision, updated_at, 'added', base from refs"
    )
    # What was read from a revision's files, so that a start need not read them again.
    db.table("inspections").create({"revision": str, "inspector": str, "facts": str}, pk="revision")


@steps()
def files_let_go(db: Database) -> None:
    # Wanted by revisions, but not here: `tier` (peer, hub) had it when it went.
    db.table("away").create(
        {"digest": str, "size_bytes": int, "tier": str, "at": float},
        pk="digest",
        not_null={"size_bytes", "tier", "at"},
    )


@steps()
def tiers_and_swaps_of_starts(db: Database) -> None:
    db.table("measurements").add_column("tier", str)  # the slowest that the weights were read from
    db.table("measurements").add_column("swapped", int)  # 1: it began in the engine of another


@steps()
def metered_usage(db: Database) -> None:
    rest = {"requests": int, "prompt_tokens": int, "cached_tokens": int, "completion_tokens": int, "byte_s": int}
    costs = {"memory_cost": float, "prompt_cost": float, "completion_cost": float}
    db.table("metered").create(
        {"day": str, "account": str, "model": str, "device": str, "currency": str, **rest, **costs},
        pk=("day", "account", "model", "device", "currency"),
        not_null={*rest, *costs},
    )
    # What the engines' own counters said of the same time, to compare.
    db.table("metered_engines").create(
        {"day": str, "model": str, "prompt_tokens": int, "cached_tokens": int, "completion_tokens": int},
        pk=("day", "model"),
        not_null={"prompt_tokens", "cached_tokens", "completion_tokens"},
    )
    # One for each time the daemon ran. Seconds since the epoch; `ended` is 1 once it had written everything.
    db.table("metered_lives").create(
        {"id": int, "began_at": float, "written_at": float, "ended": int},
        pk="id",
        not_null={"began_at", "written_at", "ended"},
    )
    table = db.table("keys")
    table.add_column("budget", float, not_null_default=0.0)
    table.add_column("budget_period", str, not_null_default="month")
    table.add_column("tokens_per_day", int, not_null_default=0)


@steps()
def wants_of_hours(db: Database) -> None:
    db.table("model_hours").create(
        {
            "hour": int,  # since the epoch
            "model": str,
            "requests": int,
            "most_at_once": int,
            "longest_tokens": int,
            "most_replicas": int,
            "need_bytes": int,
        },
        pk=("hour", "model"),
    )
    db.table("place_hours").create(
        {"hour": int, "place": str, "peak_bytes": int, "room_bytes": int}, pk=("hour", "place")
    )


@steps()
def advice_put_off(db: Database) -> None:
    db.table("advice_put_off").create({"id": str, "until": float, "at": float}, pk="id", not_null={"until", "at"})


@steps()
def answers_kept_for_repeats(db: Database) -> None:
    db.table("kept_answers").create(
        {
            "who": str,
            "key": str,  # the Idempotency-Key
            "fingerprint": str,
            "status": int,  # 0: begun
            "media": str,
            "body": bytes,  # without secrets
            "at": float,
        },
        pk=("who", "key"),
        not_null={"fingerprint", "status", "at"},
    )
    db.table("kept_answers").create_index(["at"])


@steps()
def devices_taken_out(db: Database) -> None:
    # Drained by an operator: nothing is started there until he ends it.
    db.table("drained_devices").create({"device": str, "at": float}, pk="device", not_null={"at"})


def migrate(db: sqlite_utils.Database) -> None:
    """Bring `db` up to date; each step commits together with the record of it."""
    steps.apply(db)
