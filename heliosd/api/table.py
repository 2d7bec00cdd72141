"""All routes of the API in one table: the router, openapi.json and docs/api.md are made of it."""

from heliosd.api import (
    admin,
    alerts,
    aliases,
    blobs,
    cache,
    estimate,
    explain,
    feed,
    garbage,
    health,
    log_lines,
    models,
    openai,
    pins,
    plan,
    recording,
    replicas,
    revisions,
    tiers,
    traces,
    usage,
    warmups,
)
from heliosd.api.routes import Route

ROUTES: tuple[Route, ...] = (
    *openai.ROUTES,
    *revisions.ROUTES,  # before those of models, whose refs may have slashes
    *blobs.ROUTES,  # the same
    *models.ROUTES,
    *garbage.ROUTES,
    *aliases.ROUTES,
    *cache.ROUTES,
    *replicas.ROUTES,
    *pins.ROUTES,
    *tiers.ROUTES,
    *estimate.ROUTES,
    *plan.ROUTES,
    *feed.ROUTES,
    *explain.ROUTES,
    *recording.ROUTES,
    *warmups.ROUTES,
    *log_lines.ROUTES,
    *traces.ROUTES,
    *alerts.ROUTES,
    *usage.ROUTES,
    *admin.ROUTES,
    *health.ROUTES,
)
