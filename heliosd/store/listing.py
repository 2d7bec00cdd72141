"""Which models there are: what refs and aliases mean now, remembered until the catalog changes."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from heliosd.core.names import ModelRef, digest_beginning
from heliosd.store.catalog import Catalog
from heliosd.store.inspection import Facts
from heliosd.store.inspections import Inspections
from heliosd.store.stored import Adapter, Record, StoredModel, describe_origin


@dataclass(frozen=True, slots=True)
class Listing:
    """All that the catalog knows of what refs mean now."""

    models: tuple[StoredModel, ...]
    by_name: Mapping[str, StoredModel] = field(init=False)
    """By ref and by alias."""

    def __post_init__(self) -> None:
        names = {str(model.ref): model for model in self.models}
        aliases = {alias: model for model in self.models for alias in model.aliases}
        object.__setattr__(self, "by_name", aliases | names)


class Listings:
    def __init__(self, catalog: Catalog, inspections: Inspections) -> None:
        self._catalog = catalog
        self._inspections = inspections
        self._listing: Listing | None = None
        self._once = asyncio.Lock()
        self._commits = 0

    def changed(self) -> None:
        """The catalog is another one now."""
        self._commits += 1
        self._listing = None

    async def now(self) -> Listing:
        """What the catalog has, remembered until the next commit."""
        async with self._once:
            if self._listing is not None:
                return self._listing
            commits = self._commits
            records = await self._catalog.records()
            facts = await self._inspections.facts({record.revision: record.manifest for record in records})
            listing = Listing(tuple(_stored(record, facts[record.revision]) for record in records))
            if commits == self._commits:
                self._listing = listing
            return listing

    async def find(self, ref: ModelRef) -> StoredModel | None:
        """See `Store.find`."""
        found = (await self.now()).by_name.get(str(ref))
        if found is not None or digest_beginning(ref) is None:
            return found
        record = await self._catalog.find(ref)
        if record is None:
            return None
        facts = await self._inspections.facts({record.revision: record.manifest})
        return _stored(record, facts[record.revision])


def _stored(record: Record, facts: Facts) -> StoredModel:
    return StoredModel(
        record.ref,
        record.revision,
        record.manifest,
        describe_origin(record.origin),
        record.created_at,
        record.aliases,
        facts.profile,
        Adapter(record.base, facts.adapter.rank if facts.adapter else 0) if record.base else None,
        record.of,
    )
