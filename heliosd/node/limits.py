"""What the operator lets the scheduler do."""

from heliosd.config import Settings
from heliosd.core.leaks import LeakPolicy
from heliosd.core.messages import Limits


def limits_of(settings: Settings, host_total_bytes: int = 0) -> Limits:
    """`host_total_bytes`: the machine's RAM, of which sleepers may hold a part."""
    return Limits(
        overtaking_s=settings.queue.overtaking_s,
        residence_s=settings.pool.residence_s,
        hot_swap=settings.pool.hot_swap,
        sleep=settings.pool.sleep,
        asleep_s=settings.pool.asleep_keep_alive_s,
        host_bytes=settings.pool.host_bytes(host_total_bytes),
        patience_s=settings.queue.patience_s,
        queue_length=settings.queue.length,
        safety_ratio=settings.devices.safety_ratio,
        prefetch_loads=settings.prefetch.max_loads if settings.prefetch.enabled else 0,
        prefetch_horizon_s=settings.prefetch.horizon_s,
        leaks=LeakPolicy(
            recycle=settings.leaks.recycle,
            window_s=settings.leaks.window_s,
            warm_up_s=settings.leaks.warm_up_s,
            most_bytes_per_hour=settings.leaks.most_bytes_per_hour,
        ),
    )
