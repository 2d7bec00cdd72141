"""The panels of each dashboard. Every expression is answered by a real Prometheus in the tests."""

from heliosd.telemetry.dashboards import RANGE, Dashboard, Panel

R = RANGE


def _quantiles(name: str, by: str = "") -> tuple[tuple[str, str], ...]:
    """The median and the 99th percentile of a histogram."""
    labels, legend = (f"le, {by}", f"{{{{{by}}}}} ") if by else ("le", "")
    return tuple(
        (f"histogram_quantile({share}, sum by ({labels}) (rate({name}_bucket[[]][{R}])))", f"{legend}{word}")
        for share, word in ((0.5, "p50"), (0.99, "p99"))
    )


OVERVIEW = Dashboard(
    "overview",
    "overview",
    (
        Panel("Alerts", "Alerts that fire now.", (("sum(helios_alerts_firing[[]])", "firing"),), single=True),
        Panel("Served now", "Requests that replicas work on.", (("sum(helios_leases[[]])", "requests"),), single=True),
        Panel(
            "Waiting now", "Requests that wait for a replica.", (("sum(helios_queue_length[[]])", "requests"),),
            single=True,
        ),
        Panel(
            "Requests", "Answers a second, by status.",
            ((f"sum by (status) (rate(helios_requests_total[[]][{R}]))", "{{status}}"),), "reqps",
        ),
        Panel(
            "First byte", "From an inference request to the first byte of its answer.",
            _quantiles("helios_time_to_first_byte_seconds"), "s",
        ),
        Panel("Wait", "From asking for a replica to having it.", _quantiles("helios_queue_wait_seconds"), "s"),
        Panel(
            "Memory", "Of all devices: promised, foreign, kept as safety, free.",
            (
                ("sum(helios_device_promised_bytes[[]])", "promised"),
                ("sum(helios_device_foreign_bytes[[]])", "foreign"),
                ("sum(helios_device_safety_bytes[[]])", "safety"),
                ("sum(helios_device_free_bytes[[]])", "free"),
            ),
            "bytes", stacked=True,
        ),
        Panel("Replicas", "By state.", (("sum by (state) (helios_replicas[[]])", "{{state}}"),), stacked=True),
        Panel(
            "What is waited for", "Requests in the queue, by reason.",
            (("sum by (reason) (helios_queue_reason_requests[[]])", "{{reason}}"),), stacked=True,
        ),
    ),
)  # fmt: skip

MEMORY = Dashboard(
    "memory",
    "memory account",
    (
        Panel(
            "Ledger", "Of each device, what is promised to replicas by what it is for, what others hold, what is free.",
            (
                ("helios_device_promised_bytes[[]]", "{{device}} {{part}}"),
                ("helios_device_foreign_bytes[[]]", "{{device}} foreign"),
                ("helios_device_safety_bytes[[]]", "{{device}} safety"),
                ("helios_device_free_bytes[[]]", "{{device}} free"),
            ),
            "bytes", stacked=True,
        ),
        Panel(
            "KV cache", "Reserved, and of that what holds tokens.",
            (
                ('helios_device_promised_bytes[[part="kv_cache"]]', "{{device}} reserved"),
                ("helios_device_kv_used_bytes[[]]", "{{device}} used"),
            ),
            "bytes",
        ),
        Panel(
            "Sleepers", "What sleeping replicas keep of a device, and hold of host memory.",
            (
                ("helios_device_residue_bytes[[]]", "{{device}}"),
                ("helios_host_staged_bytes[[]]", "host"),
                ("helios_host_limit_bytes[[]]", "host limit"),
            ),
            "bytes",
        ),
        Panel(
            "Measured and promised", "What ours hold, of what was promised to them.",
            (
                ("helios_device_measured_bytes[[]]", "{{device}} measured"),
                ("sum by (instance, device) (helios_device_promised_bytes[[]])", "{{device}} promised"),
            ),
            "bytes",
        ),
        Panel(
            "Drift", "What the device says ours hold beyond what was measured, as a share of it. An alert at 1 %.",
            (("helios_device_drift_bytes[[]] / helios_device_capacity_bytes[[]]", "{{device}}"),), "percentunit",
        ),
        Panel(
            "Estimates", "How far the last load's terms were off; below zero too little was predicted.",
            (("helios_estimate_error_ratio[[]]", "{{term}}"),), "percentunit",
        ),
        Panel(
            "Predicted, set aside, measured", "Of the last load, term by term.",
            (("helios_estimate_bytes[[]]", "{{term}} {{kind}}"),), "bytes",
        ),
        Panel(
            "Evictions", "Replicas sent down the ladder a second, by why.",
            ((f"sum by (reason) (rate(helios_evictions_total[[]][{R}]))", "{{reason}}"),), stacked=True,
        ),
        Panel(
            "Out of memory", "Engines that died for want of memory, within an hour.",
            (("sum by (memory) (increase(helios_out_of_memory_total[[]][1h]))", "{{memory}}"),),
        ),
    ),
)  # fmt: skip

CAPACITY = Dashboard(
    "capacity",
    "capacity",
    (
        Panel(
            "Committed", "Share of each device that is promised or foreign, and where it will be in six hours at the "
            "pace of the last hour.",
            (
                (
                    "1 - helios_device_free_bytes[[]] / helios_device_capacity_bytes[[]]",
                    "{{device}}",
                ),
                (
                    "1 - predict_linear(helios_device_free_bytes[[]][1h], 6 * 3600) / helios_device_capacity_bytes[[]]",
                    "{{device}} in 6 h",
                ),
            ),
            "percentunit",
        ),
        Panel(
            "Disks", "Free where models and state are kept, and in a day at the pace of the last hours.",
            (
                ("helios_disk_free_bytes[[]]", "{{place}}"),
                ("predict_linear(helios_disk_free_bytes[[]][6h], 24 * 3600)", "{{place}} in a day"),
            ),
            "bytes",
        ),
        Panel(
            "Time to full", "As Helios sees it coming.",
            (("helios_exhaustion_seconds[[]]", "{{device}}{{tier}}"),), "s",
        ),
        Panel(
            "Store", "What models are (logical) and what they take (physical).",
            (("helios_store_bytes[[]]", "{{kind}}"),), "bytes",
        ),
        Panel(
            "Starts ahead", "Started before anyone asked: asked for in time (hit) or not (miss), a second.",
            ((f"sum by (outcome) (rate(helios_preloads_total[[]][{R}]))", "{{outcome}}"),),
        ),
        Panel(
            "Wasted ahead", "Bytes held by starts ahead that nobody asked for.",
            ((f"sum(rate(helios_preloads_wasted_byte_seconds_total[[]][{R}]))", "held in vain"),), "bytes",
        ),
    ),
)  # fmt: skip

MODELS = Dashboard(
    "models",
    "models",
    (
        Panel(
            "Busy", "Requests that each replica works on.",
            (("sum by (model) (helios_replica_leases[[]])", "{{model}}"),), stacked=True,
        ),
        Panel(
            "KV cache in use", "How full the cache of each model's replicas is.",
            (("max by (model) (helios_replica_kv_used_ratio[[]])", "{{model}}"),), "percentunit",
        ),
        Panel(
            "Memory by model", "Promised, on one device.",
            (('sum by (model) (helios_replica_memory_bytes[[kind="promised"]])', "{{model}}"),), "bytes", stacked=True,
        ),
        Panel(
            "Starts", "Replicas that became ready, within an hour.",
            (("topk(20, sum by (model) (increase(helios_replica_starts_total[[]][1h])))", "{{model}}"),),
        ),
        Panel(
            "A start's phases", "Mean seconds of each phase, within an hour.",
            (
                (
                    "sum by (phase) (increase(helios_replica_start_seconds_total[[]][1h])) / "
                    "on () group_left () (sum(increase(helios_replica_starts_total[[]][1h])) > 0)",
                    "{{phase}}",
                ),
            ),
            "s", stacked=True,
        ),
        Panel(
            "Failures", "Engines that ended by themselves within an hour, by what they were at.",
            (("sum by (phase) (increase(helios_engine_failures_total[[]][1h]))", "{{phase}}"),),
        ),
        Panel(
            "Breakers", "Places where a model is not started now.",
            (("sum by (state) (helios_breakers[[]])", "{{state}}"),),
        ),
        Panel(
            "Time spent waiting", "Seconds of waiting a second, by what was waited for.",
            ((f"sum by (reason) (rate(helios_queue_wait_reason_seconds_total[[]][{R}]))", "{{reason}}"),), stacked=True,
        ),
        Panel(
            "Refused and shed", "Decisions a second, refusals by their code.",
            ((f"sum by (decision, code) (rate(helios_decisions_total[[]][{R}]))", "{{decision}} {{code}}"),), "reqps",
        ),
    ),
)  # fmt: skip

ENGINES = Dashboard(
    "engines",
    "engines (vLLM)",
    (
        Panel(
            "Tokens", "Read (prompt) and written (generation) a second, by model.",
            (
                (f"sum by (model_name) (rate(vllm:generation_tokens_total[[]][{R}]))", "{{model_name}} written"),
                (f"sum by (model_name) (rate(vllm:prompt_tokens_total[[]][{R}]))", "{{model_name}} read"),
            ),
        ),
        Panel(
            "First token", "From the engine's having a request to its first token.",
            _quantiles("vllm:time_to_first_token_seconds", "model_name"), "s",
        ),
        Panel(
            "Between tokens", "From one token to the next.",
            _quantiles("vllm:inter_token_latency_seconds", "model_name"), "s",
        ),
        Panel(
            "Sequences", "What each engine works on, and what waits in it.",
            (
                ("sum by (model_name) (vllm:num_requests_running[[]])", "{{model_name}} running"),
                ("sum by (model_name) (vllm:num_requests_waiting[[]])", "{{model_name}} waiting"),
            ),
        ),
        Panel(
            "Put back", "Sequences put back for want of KV cache, a second.",
            ((f"sum by (model_name) (rate(vllm:num_preemptions_total[[]][{R}]))", "{{model_name}}"),),
        ),
        Panel(
            "Prompts known", "Share of prompt tokens that were in the prefix cache, within an hour.",
            (
                (
                    "sum by (model_name) (increase(vllm:prefix_cache_hits_total[[]][1h])) / "
                    "sum by (model_name) (increase(vllm:prefix_cache_queries_total[[]][1h]))",
                    "{{model_name}}",
                ),
            ),
            "percentunit",
        ),
    ),
)  # fmt: skip

KEYS = Dashboard(
    "keys",
    "keys and cost",
    (
        Panel(
            "Tokens", "Tokens a second, by key and kind.",
            ((f"sum by (key, kind) (rate(helios_key_tokens_total[[]][{R}]))", "{{key}} {{kind}}"),), stacked=True,
        ),
        Panel(
            "Memory", "GiB of device memory held for each key.",
            ((f"sum by (key) (rate(helios_key_gib_seconds_total[[]][{R}]))", "{{key}}"),), stacked=True,
        ),
    ),
)  # fmt: skip

CLUSTER = Dashboard(
    "cluster",
    "cluster and daemon",
    (
        Panel("Nodes", "Other nodes, as each sees them.", (("helios_cluster_members[[]]", "{{instance}} {{state}}"),)),
        Panel(
            "Event loop", "How late it runs what is due.", _quantiles("helios_event_loop_lag_seconds"), "s",
        ),
        Panel("Database", "Time of a transaction.", _quantiles("helios_database_seconds", "kind"), "s"),
        Panel(
            "Database size", "The main file and its write-ahead log.",
            (("helios_database_bytes[[]]", "{{instance}} {{file}}"),), "bytes",
        ),
        Panel(
            "Database backlog", "Transactions that run or wait for its thread.",
            (("helios_database_backlog[[]]", "{{instance}}"),),
        ),
        Panel(
            "The daemon", "Its processor time and resident memory.",
            (
                (f"rate(process_cpu_seconds_total[[]][{R}])", "{{instance}} cores"),
                ("process_resident_memory_bytes[[]] / 2^30", "{{instance}} GiB"),
            ),
        ),
    ),
)  # fmt: skip

DASHBOARDS = (OVERVIEW, MEMORY, CAPACITY, MODELS, ENGINES, KEYS, CLUSTER)
