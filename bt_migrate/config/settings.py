"""Every setting of a process: the one place where a setting is declared.

The parser, `.env.example` and the pages of the manual are made from the fields of `Settings`.
`load` reads the values.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Dict, Mapping, Optional, Tuple

from bt_migrate.config import values
from bt_migrate.config.bundles import BundleFiles, bundle_files
from bt_migrate.config.declare import Setting, kept, option_switch, secret, setting, settings_of
from bt_migrate.config.user_map import UserMap
from bt_migrate.config.user_map import user_map as read_user_map
from bt_migrate.model.activation import ACTIVATION_WORDS
from bt_migrate.model.resources import ROW_KINDS
from bt_migrate.model.run_identity import Shard

# Sections, in the order in which --help, .env.example and the manual show them.
ORGANIZATIONS = "organizations"
SELECTION = "what to move"
SYNC = "sync"
CONFLICTS = "what exists in the destination"
PEOPLE = "people and code"
RUN = "run"
REQUESTS = "requests"
ROWS = "rows"
VERIFICATION = "verification"
LOGGING = "output"
SECTIONS = (
    ORGANIZATIONS, SELECTION, SYNC, CONFLICTS, PEOPLE, RUN, REQUESTS, ROWS, VERIFICATION, LOGGING,
)  # fmt: skip

ROW_SETTINGS = ("fetch_limit", "insert_batch_size", "use_seen_db")  # settable per kind of rows


@dataclass(frozen=True)
class RowSettings:
    """How rows of one kind are read and written."""

    fetch_limit: int
    insert_batch_size: int
    use_seen_db: bool
    max_batch_bytes: int


# fmt: off
@dataclass(frozen=True)
class Settings:
    """All settings of one process.

    Each field is declared with section, names (environment variable, option), default, reading
    function and help text. `kept` marks options that every recommended command repeats: see
    report/advice.
    """

    source_api_key: str = secret(setting(
        ORGANIZATIONS, "BT_SOURCE_API_KEY", "", values.plain_text,
        "API key of the source organization (read rights are enough)"))
    dest_api_key: str = secret(setting(
        ORGANIZATIONS, "BT_DEST_API_KEY", "", values.plain_text,
        "API key of the destination organization (with write rights)"))
    source_url: str = setting(
        ORGANIZATIONS, "BT_SOURCE_URL", values.DEFAULT_URL, values.url,
        "API URL of the source's data plane")
    dest_url: str = setting(
        ORGANIZATIONS, "BT_DEST_URL", values.DEFAULT_URL, values.url,
        "API URL of the destination's data plane")
    source_org: str = setting(
        ORGANIZATIONS, "BT_SOURCE_ORG", "", values.plain_text,
        "name of the source organization, if the key belongs to several")
    dest_org: str = setting(
        ORGANIZATIONS, "BT_DEST_ORG", "", values.plain_text,
        "name of the destination organization, if the key belongs to several")
    source_app_url: str = setting(
        ORGANIZATIONS, "BT_SOURCE_APP_URL", "", values.optional_url,
        "URL of the source's user interface, for links in report.html (default: the hosted one)")
    dest_app_url: str = setting(
        ORGANIZATIONS, "BT_DEST_APP_URL", "", values.optional_url,
        "URL of the destination's user interface, for links in report.html")

    resources: Tuple[str, ...] = kept(setting(
        SELECTION, "MIGRATION_RESOURCES --resources NAMES", "all", values.resources,
        "move only these resources, comma-separated; * and ? are wildcards"))
    exclude_resources: Tuple[str, ...] = kept(setting(
        SELECTION, "MIGRATION_EXCLUDE_RESOURCES --exclude-resources NAMES",
        "", values.excluded_resources,
        "do not move these resources, comma-separated"))
    projects: Tuple[str, ...] = kept(setting(
        SELECTION, "MIGRATION_PROJECTS --projects NAMES", "", values.names,
        'move only these source projects, comma-separated; "a, b" for a name with a comma; * and ?'
        " are wildcards"))
    exclude_projects: Tuple[str, ...] = kept(setting(
        SELECTION, "MIGRATION_EXCLUDE_PROJECTS --exclude-projects NAMES", "", values.names,
        "do not move these source projects, comma-separated"))
    no_rows: bool = option_switch(
        SELECTION, "--no-rows", "move objects without their rows, and nothing that needs rows")
    created_after: Optional[str] = setting(  # absolute, in UTC
        SELECTION, "MIGRATION_CREATED_AFTER --created-after DATE", "", values.optional_text,
        "move only logs and experiments created since this date")
    created_before: Optional[str] = setting(
        SELECTION, "MIGRATION_CREATED_BEFORE --created-before DATE", "", values.optional_text,
        "move only logs and experiments created before this date")
    window: str = setting(
        SELECTION, "MIGRATION_WINDOW --window UNIT", "", values.window_unit,
        "move only logs and experiments of the last full day or hour: daily or hourly")
    fill_gaps: bool = option_switch(
        SELECTION, "--fill-gaps", "extend the window back to the end of the last one (fill gaps)")
    tz: str = setting(
        SELECTION, "MIGRATION_TZ --tz ZONE", "UTC", values.zone,
        "time zone of days, hours and dates without a zone (Europe/Berlin, +01:00)")
    dataset_versions: bool = kept(setting(
        SELECTION, "MIGRATION_DATASET_VERSIONS --dataset-versions", "false", values.switch,
        "write each earlier state of a new dataset that a snapshot, experiment or row points to"))
    history: int = kept(setting(
        SELECTION, "MIGRATION_HISTORY --history VERSIONS", "none", values.history,
        "also move earlier versions of prompts, functions and parameters: all, or the last N"))
    keep_public: bool = kept(setting(
        SELECTION, "MIGRATION_KEEP_PUBLIC --keep-public", "false", values.switch,
        "keep public experiments public; without it they become private"))

    activate: Tuple[str, ...] = kept(setting(
        SELECTION, "MIGRATION_ACTIVATE --activate KINDS", "", values.activations,
        f"create automations that act outside or delete: {', '.join(ACTIVATION_WORDS)}, or all;"
        " without it they are listed as ready to activate"))

    since_last: bool = option_switch(
        SYNC, "--since-last", "move what changed in the source since the last run")
    lookback: float = kept(setting(
        SYNC, "MIGRATION_LOOKBACK --lookback TIME", "10m", values.duration,
        "with --since-last, re-read this long before the last sync, for late rows"))
    propagate_deletes: bool = kept(setting(
        SYNC, "MIGRATION_PROPAGATE_DELETES --propagate-deletes", "false", values.switch,
        "with --since-last, delete copied rows that were deleted in the source"))
    max_deletes: str = kept(setting(
        SYNC, "MIGRATION_MAX_DELETES --max-deletes N", "1%", values.max_deletes,
        "delete no row if more than this share or number of rows would go"))

    on_conflict: Mapping[str, str] = kept(setting(  # resource -> policy, for each kind of object
        CONFLICTS, "MIGRATION_ON_CONFLICT --on-conflict WORDS",
        values.KEEP_POLICY, values.conflict_policies,
        "keep, follow, update or fail if an object differs (follow: update what changed in the"
        " source only); also by resource: keep,prompts=update; --since-last follows"))
    rename_projects: Mapping[str, str] = kept(setting(  # source name -> destination name
        CONFLICTS, "MIGRATION_RENAME_PROJECTS --rename-projects NAMES", "", values.project_renames,
        r'rename projects in the destination: "Old=New,..." (\= for an equals sign in a name)'))

    user_map: UserMap = kept(secret(setting(
        PEOPLE, "MIGRATION_USER_MAP --user-map FILE", "", read_user_map,
        "CSV file: the e-mail addresses of a user in the source and in the destination")))
    invite_users: bool = kept(option_switch(
        PEOPLE, "--invite-users",
        "invite the missing users that something refers to; asks first, or needs --yes"))
    send_invites: bool = kept(option_switch(
        PEOPLE, "--send-invites", "with --invite-users, let the server send e-mails to them"))
    bundles: BundleFiles = kept(setting(
        PEOPLE, "MIGRATION_BUNDLES --bundles DIR", "", bundle_files,
        "upload code bundles from this folder: <bundle id>.* or <project>/<slug>.*"))

    state_dir: str = setting(
        RUN, "MIGRATION_STATE_DIR --state-dir PATH", "./checkpoints", values.plain_text,
        "folder of runs, or one run, or one project in a run")
    resume_run_dir: str = setting(
        RUN, "MIGRATION_RESUME_RUN_DIR", "", values.plain_text,
        "run directory to resume; wins over MIGRATION_STATE_DIR")
    new_run: bool = option_switch(
        RUN, "--new-run", "start a new run even if an unfinished one could be resumed")
    dry_run: bool = option_switch(
        RUN, "--dry-run", "show the plan; changes nothing in either organization")
    plan_out: str = setting(
        RUN, "--plan-out PATH", "", values.output_file,
        "write the plan to this file as JSON; a real run makes its plan first")
    plan: str = setting(
        RUN, "--plan PATH", "", values.plain_text,
        "carry out exactly this plan; stop before the first write if it no longer holds")
    fail_on_loss: bool = option_switch(
        RUN, "--fail-on-loss",
        "plan first; exit 1 before the first write if something cannot be copied")
    max_duration: float = setting(
        RUN, "MIGRATION_MAX_DURATION --max-duration TIME", "0", values.duration,
        "stop cleanly after this time (90, 30m, 2h); 0 for no limit")
    wait_lock: float = setting(
        RUN, "MIGRATION_WAIT_LOCK --wait-lock TIME", "0", values.duration,
        "wait this long for a run that another process holds")
    on_end: str = setting(
        RUN, "MIGRATION_ON_END --on-end COMMAND", "", values.plain_text,
        "run this shell command at the end, with status and counts in its environment")
    metrics_file: str = setting(
        RUN, "MIGRATION_METRICS_FILE --metrics-file PATH", "", values.output_file,
        "write exit code and counts to this file at the end, in the Prometheus text format")
    checkpoint_interval: int = setting(
        RUN, "MIGRATION_CHECKPOINT_INTERVAL", "50", values.positive,
        "objects (a twentieth of very many) or row batches between checkpoints")
    shards: int = setting(
        RUN, "--shards N", "", values.optional_count,
        "share the rows out among this many")
    changed: bool = option_switch(
        RUN, "--changed", "also delete what was changed since the run")
    yes: bool = kept(option_switch(
        RUN, "--yes", "with --invite-users, invite them without a question"))

    batch_size: int = setting(
        REQUESTS, "MIGRATION_BATCH_SIZE --batch-size N", "100", values.positive,
        "objects per list page and per batch of creations")
    max_concurrent: int = setting(
        REQUESTS, "MIGRATION_MAX_CONCURRENT --max-concurrent N", "10", values.positive,
        "requests in flight per organization")
    retry_attempts: int = setting(
        REQUESTS, "MIGRATION_RETRY_ATTEMPTS", "3", values.not_negative,
        "retries of a failed request; 0 fails fast")
    retry_delay: float = setting(
        REQUESTS, "MIGRATION_RETRY_DELAY", "1.0", values.seconds,
        "seconds before the first retry; doubles with each retry")
    rate_limit_tries: int = setting(
        REQUESTS, "MIGRATION_RATE_LIMIT_TRIES", "100", values.positive,
        "429s in a row to one kind of request before the run stops (exit 3)")
    max_retry_after: float = setting(
        REQUESTS, "MIGRATION_MAX_RETRY_AFTER", "15m", values.duration,
        "longest Retry-After that is waited for; more stops the run (exit 3)")
    btql_per_minute: int = setting(
        REQUESTS, "MIGRATION_BTQL_PER_MINUTE --btql-per-minute N", "0", values.not_negative,
        "queries per minute and organization; 0 learns the limit from refused queries")

    fetch_limit: int = setting(
        ROWS, "MIGRATION_EVENTS_FETCH_LIMIT --fetch-limit N", "1000", values.positive,
        "rows per page read; the API's maximum is 1000")
    insert_batch_size: int = setting(
        ROWS, "MIGRATION_EVENTS_INSERT_BATCH_SIZE --insert-batch-size N", "1000", values.positive,
        "rows per insert request")
    use_seen_db: bool = setting(
        ROWS, "MIGRATION_EVENTS_USE_SEEN_DB --use-seen-db BOOL", "true", values.switch,
        "remember each delivered row in SQLite")
    max_request_bytes: int = setting(
        ROWS, "MIGRATION_INSERT_MAX_REQUEST_BYTES --max-request-bytes N",
        "6291456", values.positive,
        "largest insert request that the server accepts")
    headroom_ratio: float = setting(
        ROWS, "MIGRATION_INSERT_REQUEST_HEADROOM_RATIO --headroom-ratio RATIO",
        "0.75", values.ratio,
        "fraction of --max-request-bytes to use")
    max_row_bytes: int = setting(
        ROWS, "MIGRATION_MAX_ROW_BYTES", "20000000", values.positive,
        "largest row that is sent whole; the largest fields of a larger one become attachments")
    max_in_flight_bytes: int = setting(
        ROWS, "MIGRATION_MAX_IN_FLIGHT_BYTES --max-in-flight-bytes N", "67108864", values.positive,
        "bytes of rows that were read and are not yet written")
    read_streams: int = setting(
        ROWS, "MIGRATION_READ_STREAMS --read-streams N", "1", values.positive,
        "parallel readers of one large stream; above 1 the order of its rows changes")
    preserve_order: bool = kept(setting(
        ROWS, "MIGRATION_PRESERVE_ORDER --preserve-order", "false", values.switch,
        "insert one batch after the other, in the order of the source"))
    attachments: bool = kept(setting(
        ROWS, "MIGRATION_ATTACHMENTS --no-attachments", "true", values.switch,
        "copy the bytes of attachments"))
    attachment_max_bytes: int = setting(
        ROWS, "MIGRATION_ATTACHMENT_MAX_BYTES", "52428800", values.positive,
        "larger attachments are not copied")

    verify: bool = setting(
        VERIFICATION, "--no-verify", "true", values.switch,
        "compare both organizations at the end")
    counts: bool = option_switch(
        VERIFICATION, "--counts", "compare only the number of rows")
    verify_sample: int = setting(
        VERIFICATION, "MIGRATION_VERIFY_SAMPLE --sample N", "100", values.not_negative,
        "rows of each stream that are compared by content, besides the counts")
    full: bool = option_switch(
        VERIFICATION, "--full", "compare every row by content")
    verify_wait: float = setting(
        VERIFICATION, "MIGRATION_VERIFY_WAIT", "30", values.seconds,
        "seconds to wait for rows that the destination does not show yet")

    log_level: str = setting(
        LOGGING, "LOG_LEVEL --log-level LEVEL", "INFO", values.log_level,
        "print DEBUG, INFO, WARNING or ERROR lines")
    log_format: str = setting(
        LOGGING, "LOG_FORMAT --log-format FORMAT", "text", values.log_format,
        "print lines as text, or as json: one JSON object per line")
    verbose: bool = option_switch(
        LOGGING, "--verbose", "print a line for each object and request (also -v, LOG_LEVEL=DEBUG)")
    quiet: bool = option_switch(
        LOGGING, "--quiet", "print only errors, and one line if not all arrived")
    json: bool = option_switch(
        LOGGING, "--json", "print each line and the summary as a JSON object")

    # Set by the program, not by the user.
    depth_given: bool = False  # --counts, --sample or --full
    named_resources: Tuple[str, ...] = ()  # those of --resources, unless these are all
    overrides: Mapping[str, Any] = field(default_factory=dict)  # "logs.fetch_limit" -> value
    relative_window: str = ""  # the window as text, if it means another period at another time
    shard: Optional[Shard] = None  # move only these rows; see shards
    arguments: Tuple[str, ...] = ()  # of the program, as they were given
    # variable -> text of those that do not have their defaults, for the report
    changed_settings: Mapping[str, str] = field(default_factory=dict, compare=False)
    warnings: Tuple[str, ...] = ()  # about the environment, to log once logging has started
    # fmt: on

    @property
    def app_urls(self) -> Dict[str, str]:
        """The URL of the user interface by side, "" if it is not set."""
        return {"source": self.source_app_url, "destination": self.dest_app_url}

    def rows(self, kind: str) -> RowSettings:
        """Returns the row settings of a kind: its own, or else those for all kinds."""
        chosen = {
            name: self.overrides.get(f"{kind}.{name}", getattr(self, name)) for name in ROW_SETTINGS
        }
        return RowSettings(
            max_batch_bytes=int(self.max_request_bytes * self.headroom_ratio), **chosen
        )

    @property
    def depth(self) -> str:
        """How rows are compared: full, sample (in addition to the counts) or counts."""
        if self.full:
            return "full"
        return "sample" if self.verify_sample and not self.counts else "counts"

    @property
    def part(self) -> str:
        """Which part of a divided move this process moves, "" for a whole move."""
        if self.shard:
            return str(self.shard)
        return "objects" if self.no_rows else ""

    def may_delete(self, rows: int) -> int:
        """Returns how many rows a sync may delete, out of `rows`."""
        if self.max_deletes.endswith("%"):
            return int(rows * float(self.max_deletes[:-1]) / 100)
        return int(self.max_deletes)

    @property
    def selects_projects(self) -> bool:
        """Whether only some of the source's projects may be moved."""
        return bool(self.projects or self.exclude_projects)

    def selects(self, resource: str) -> bool:
        return resource in self.resources


ALL_SETTINGS: Tuple[Setting, ...] = settings_of(Settings)
# not passed on to the command of --on-end
SECRET_VARIABLES = ("BT_SOURCE_API_KEY", "BT_DEST_API_KEY")
# not in the report; the command of --on-end may contain a password
UNRECORDED_VARIABLES = (*SECRET_VARIABLES, "MIGRATION_ON_END")
TABLE: Tuple[Setting, ...] = tuple(item for item in ALL_SETTINGS if item.env)
ROW_OVERRIDES: Tuple[Setting, ...] = tuple(
    replace(
        item,
        field=f"{kind.name}.{item.field}",
        env=item.env.replace("EVENTS", kind.setting),
        default="",
        flag="",
        about=f"{item.about}: for {kind.name} only",
    )
    for kind in ROW_KINDS.values()
    for item in TABLE
    if item.field in ROW_SETTINGS
)
