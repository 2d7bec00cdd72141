"""What a replica would take here and whether it is to be had, without starting anything."""

from collections.abc import Callable

from heliosd.core.lifecycle import State
from heliosd.core.names import ModelRef
from heliosd.core.placement import Fits, MustWait, NeverFits, place
from heliosd.core.scheduler import Scheduler
from heliosd.demands import Appraisal, Demands
from heliosd.estimation.known import Known
from heliosd.lease import Judgement
from heliosd.store.store import Store
from heliosd.store.stored import StoredModel


class Judging:
    def __init__(self, scheduler: Scheduler, demands: Demands, store: Store, now: Callable[[], float]) -> None:
        self._scheduler = scheduler
        self._demands = demands
        self._store = store
        self._now = now

    async def stored(
        self,
        ref: ModelRef,
        *,
        kv_cache_bytes: int | None = None,
        max_model_len: int | None = None,
        max_num_seqs: int | None = None,
    ) -> Judgement:
        """Raises NotFound when the store does not have it."""
        stored = await self._store.find(ref)
        if stored is None:
            raise await self._demands.unknown(ref)
        appraisal = await self._demands.appraise(
            stored, kv_cache_bytes=kv_cache_bytes, max_model_len=max_model_len, max_num_seqs=max_num_seqs
        )
        return self._judgement(appraisal, await self._store.known(appraisal.base))

    async def unstored(self, prospect: StoredModel, known: Known) -> Judgement:
        """The same for a model that the store does not have yet. Raises BadRequest when its settings contradict."""
        return self._judgement(await self._demands.appraise(prospect, known=known), known)

    def _judgement(self, appraisal: Appraisal, known: Known) -> Judgement:
        replicas = self._scheduler.replicas.values()
        ready = next((each for each in replicas if each.serves(appraisal.demand) and each.state is State.READY), None)
        if ready is not None:
            verdict, reason = "ready", f"{ready.id} is ready on {', '.join(ready.devices)}"
        else:
            match place(appraisal.demand, self._scheduler.ledger, self._scheduler.residents.at(self._now())):
                case Fits(reason=reason):
                    verdict = "fits"
                case MustWait(reason=reason):
                    verdict = "must_wait"
                case NeverFits(reason=reason):
                    verdict = "never_fits"
        predicted = appraisal.estimate
        return Judgement(
            model=str(appraisal.stored.ref),
            per_device=predicted.per_device,
            device_count=predicted.device_count,
            max_model_len=predicted.max_model_len,
            kv_tokens=predicted.kv_tokens,
            kv_bytes_per_token=predicted.kv_bytes_per_token,
            verdict=verdict,
            reason=reason,
            notes=predicted.notes,
            accounts=predicted.accounts,
            launch=predicted.launch,
            read=known.model,
            pipeline_parallel=predicted.pipeline_parallel,
            max_num_seqs=predicted.max_num_seqs,
        )
