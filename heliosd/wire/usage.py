"""What was used, and what it cost."""

from pydantic import Field

from heliosd.wire.base import Wire


class UsageRow(Wire):
    """Of one key, model, day or of all of them together; what is not told apart is empty."""

    day: str = Field("", description="of UTC, such as 2026-11-26")
    key: str = Field("", description="name of the API key; (none): no key; (idle): memory that nobody used")
    model: str = ""
    device: str = Field("", description="what the device is called")
    currency: str
    requests: int = 0
    prompt_tokens: int = Field(0, description="as engines count them, cached ones included")
    cached_tokens: int = Field(0, description="of the prompts', those that were in the KV cache")
    completion_tokens: int = 0
    gib_s: float = Field(0.0, description="GiB of device memory times seconds")
    memory_cost: float = 0.0
    prompt_cost: float = 0.0
    completion_cost: float = 0.0
    cost: float = Field(0.0, description="the three together")


class UsageList(Wire):
    since: str = Field(description="the first day")
    until: str = Field(description="the last day")
    usage: list[UsageRow]
    engine_prompt_tokens: int = Field(description="what the engines' own counters say of the same days")
    engine_completion_tokens: int
    uncertain_s: float = Field(description="how much of what is served a crash may lose")
