"""The tables of a ledger, in SQL that SQLite and PostgreSQL both read."""

from gateway.types.usage import Usage

SCHEMA_VERSION = 2

USAGE_COLUMNS = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "input_audio_tokens",
    "output_audio_tokens",
    "cache_write_1h_tokens",
    "web_searches",
    "file_searches",
    "other_tool_calls",
)
PAYER_COLUMNS = ("team", "key_id", "route", "provider", "model")
ENTRY_COLUMNS = (
    "request_id",
    "attempt",
    "kind",
    "at_ns",
    "settled_ns",
    *PAYER_COLUMNS,
    "basis",
    "nano_usd",
    "price_version",
    "usage_source",
    "service_tier",
    *USAGE_COLUMNS,
)
HOLD_COLUMNS = (
    "request_id",
    "attempt",
    "owner",
    "epoch",
    "at_ns",
    "nano_usd",
    *PAYER_COLUMNS,
    "price_version",
    "counters",
)
COUNTER_COLUMNS = ("scope", "window_id", "start_ns", "end_ns", "family", "match_on", "spent", "held")
ALERT_COLUMNS = (
    "id",
    "budget",
    "scope",
    "window_id",
    "threshold",
    "webhook",
    "spent",
    "limit_nano_usd",
    "created_ns",
    "tries",
)
KEY_COLUMNS = (
    "id", "secret_hash", "team", "routes", "created_ns", "expires_ns", "revoked_ns", "calls_per_minute",
)  # fmt: skip

assert set(USAGE_COLUMNS) < set(Usage.__struct_fields__)

_TOKENS = ",\n    ".join(f"{name} BIGINT" for name in USAGE_COLUMNS)

TABLES = (
    "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS owners (node TEXT PRIMARY KEY, epoch BIGINT NOT NULL)",
    f"""CREATE TABLE IF NOT EXISTS entries (
    request_id TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    kind TEXT NOT NULL,
    at_ns BIGINT NOT NULL,
    settled_ns BIGINT NOT NULL,
    team TEXT NOT NULL,
    key_id TEXT NOT NULL,
    route TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    basis TEXT NOT NULL,
    nano_usd BIGINT,
    price_version TEXT NOT NULL,
    usage_source TEXT,
    service_tier TEXT,
    {_TOKENS},
    PRIMARY KEY (request_id, attempt, kind))""",
    "CREATE INDEX IF NOT EXISTS entries_at ON entries (at_ns)",
    """CREATE TABLE IF NOT EXISTS holds (
    request_id TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    owner TEXT NOT NULL,
    epoch BIGINT NOT NULL,
    at_ns BIGINT NOT NULL,
    nano_usd BIGINT NOT NULL CHECK (nano_usd >= 0),
    team TEXT NOT NULL,
    key_id TEXT NOT NULL,
    route TEXT NOT NULL,
    provider TEXT NOT NULL,
    model TEXT NOT NULL,
    price_version TEXT NOT NULL,
    counters TEXT NOT NULL,
    PRIMARY KEY (request_id, attempt))""",
    "CREATE INDEX IF NOT EXISTS leases ON holds (request_id) WHERE attempt = 0",
    "CREATE TABLE IF NOT EXISTS recalls (lease TEXT PRIMARY KEY)",
    """CREATE TABLE IF NOT EXISTS counters (
    scope TEXT NOT NULL,
    window_id TEXT NOT NULL,
    start_ns BIGINT NOT NULL,
    end_ns BIGINT NOT NULL,
    family TEXT NOT NULL,
    match_on TEXT NOT NULL,
    spent BIGINT NOT NULL,
    held BIGINT NOT NULL CHECK (held >= 0),
    PRIMARY KEY (scope, window_id))""",
    # Windows that have ended stay: after a year of days, the present ones must be found among a hundred times as many.
    "CREATE INDEX IF NOT EXISTS counters_end ON counters (end_ns)",
    """CREATE TABLE IF NOT EXISTS outbox (
    id TEXT PRIMARY KEY,
    budget TEXT NOT NULL,
    scope TEXT NOT NULL,
    window_id TEXT NOT NULL,
    threshold TEXT NOT NULL,
    webhook TEXT NOT NULL,
    spent BIGINT NOT NULL,
    limit_nano_usd BIGINT NOT NULL,
    created_ns BIGINT NOT NULL,
    tries BIGINT NOT NULL,
    due_ns BIGINT NOT NULL,
    delivered_ns BIGINT,
    UNIQUE (budget, scope, window_id, threshold, webhook))""",
    "CREATE INDEX IF NOT EXISTS outbox_due ON outbox (due_ns) WHERE delivered_ns IS NULL",
    """CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY,
    secret_hash TEXT NOT NULL,
    team TEXT NOT NULL,
    routes TEXT NOT NULL,
    created_ns BIGINT NOT NULL,
    expires_ns BIGINT,
    revoked_ns BIGINT,
    calls_per_minute BIGINT)""",
)
