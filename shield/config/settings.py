"""Settings: arguments > environment `SHIELD_...` > shield.toml > defaults, validated as a whole."""

from __future__ import annotations

import errno
import os
import stat
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    create_model,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as UnreadableVariableError

from shield.config.chain_syntax import ActionChoice, chain_type
from shield.config.credentials import Credential, Name, with_credentials
from shield.config.env_variables import PREFIX, unknown_variables
from shield.config.gc_pause import at_rest
from shield.config.problems import describe
from shield.config.redrive_allow import checked
from shield.config.registry import Registry, registry_of
from shield.errors import SettingsError
from shield.policy import Policy
from shield.settings_model import StrictModel, nearest, unknown_key
from shield.signing import Signer
from shield.units import Seconds
from shield.url import URL, is_secret, masked

DEFAULT_FILE = "shield.toml"
MOST_BYTES = 16 * 1024**2
"""How large a file of settings may be."""
Mode = Literal["enforce", "shadow", "off"]
SigningKey = Annotated[SecretStr, Field(min_length=16)]


def _named_folder(found: object) -> object:
    """Refuse an empty text, which Python would read as the working directory."""
    if isinstance(found, str) and not found.strip():
        raise ValueError("allowed is the path of a folder")
    return found


Folder = Annotated[
    Path, BeforeValidator(_named_folder), AfterValidator(lambda path: _of_home(path))
]


def _no_bool(found: object) -> object:
    if isinstance(found, bool):
        raise ValueError("allowed is a whole number")
    return found


class RuleSettings(StrictModel):
    """One `[[rules]]` table. The policies' keys beside these come from the registered policies."""

    match: str = Field(min_length=1)
    """Glob on the destination; `*` is any characters."""
    name: str = ""
    """What ledger, errors and headers call it; `rule-N` where it has none."""
    exclude: str | None = Field(default=None, alias="except", min_length=1)
    """Glob on destinations that the rule leaves out."""
    producers: str = Field(default="*", min_length=1)
    """Glob on the producer's name."""
    direction: Literal["publish", "consume"] = "publish"
    """Which messages it is about: those that are sent, or those that are received."""
    mode: Mode | None = None
    """As the process's `mode`, for this rule alone."""
    redrive: Literal["auto"] | None = None
    """`auto` brings overflowed messages back once the rule has refused nothing for a while."""
    over_limit: list[ActionChoice] = []
    """The chain of actions for a message over the limit.

    Where it ends, the message is raised; one that is received stays with the broker, and is asked
    about again.
    """


class PluginSettings(StrictModel):
    """The `[plugins]` table."""

    disable: list[str] = []
    """Names of plugins, as `shield plugins` lists them, to leave out."""


class ShieldSettings(BaseSettings):
    """All settings of one Shield."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    producer: str = Field(default_factory=lambda: program_name(), min_length=1)
    """Who this process is; the program's name where nothing says so."""
    mode: Mode = "enforce"
    """`shadow` computes and counts verdicts and lets every message pass; `off` applies no rule."""
    spool_dir: Folder = Field(default_factory=lambda: state_folder() / "spool")
    """Where `spool` keeps its files; `~/.local/state/shield/spool` where nothing says so."""
    on_plugin_error: Literal["open", "closed"] = "open"
    """What a plugin that raises means: `open` as if it had admitted, `closed` as if refused."""
    answer_within: Seconds = Field(default=120.0, gt=0, le=86_400)
    """How long a transport may take to answer for a message; then it counts as failed."""
    redrive_attempts: Annotated[int, BeforeValidator(_no_bool)] = Field(default=5, ge=1)
    """A message that was set aside so often does not go back any more: it is parked, or stays."""
    redrive_park: str | None = Field(default=None, min_length=1)
    """Where it is parked: a URL, or a destination on the broker that it was going to."""
    redrive_allow: list[Annotated[str, AfterValidator(checked)]] = []
    """Where redrive may go beside what the rules cover: URLs of brokers, as a message's headers
    name them, `kafka://other:9092` or with a glob on destinations `kafka://other:9092/orders.*`;
    or a glob alone, for the broker that is read."""
    signing_key: SigningKey | Annotated[list[SigningKey], Field(min_length=1)] | None = None
    """Signs the headers of what is set aside, so that redrive believes no others: a text of 16
    characters or more, or a list of them, of which the first signs. Better in the environment,
    as `SHIELD_SIGNING_KEY`."""
    plugins: PluginSettings = PluginSettings()
    credentials: dict[Name, Credential] = {}
    """Users and passwords of other brokers, each under a name of its own."""
    rules: list[RuleSettings] = []

    _registry: Registry = PrivateAttr()
    _source: str = PrivateAttr(default="settings")

    @property
    def registry(self) -> Registry:
        """The plugins that these settings were validated against."""
        return self._registry

    @property
    def source(self) -> str:
        """Where they came from: the file's path, or `settings`."""
        return self._source

    def url(self, text: str) -> URL:
        """Read a URL, with user and password from `credentials` where it brings none.

        Raises:
            ValueError: it is no URL; the text says what is allowed, and no secrets.
        """
        return with_credentials(URL.parse(text), self.credentials)

    @property
    def signer(self) -> Signer | None:
        """What signs headers, and vouches for them; None without a key."""
        keys = self.signing_key
        if keys is None:
            return None
        several = keys if isinstance(keys, list) else [keys]
        return Signer([key.get_secret_value().encode() for key in several])

    @property
    def names_producer(self) -> bool:
        """Whether the settings say who the process is."""
        return "producer" in self.model_fields_set


def program_name() -> str:
    """Return the name of the running program, as a default for who it is."""
    script = Path(sys.argv[0] if sys.argv else "")
    return script.parent.name if script.stem == "__main__" else script.stem or "python"


def state_folder() -> Path:
    """Return where this user's programs keep what they need again: `$XDG_STATE_HOME/shield`.

    Begins with `~` for a user without a home: what needs the folder refuses to guess another.
    """
    base = Path(os.environ.get("XDG_STATE_HOME", ""))
    return _of_home(base if base.is_absolute() else Path("~/.local/state")) / "shield"


def _of_home(path: Path) -> Path:
    """Return a path that begins with `~` in full, where its user has a home."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


@at_rest()
def load_settings(path: str | Path | None = None, plugins: Iterable[object] = ()) -> ShieldSettings:
    """Read the named file, or `$SHIELD_CONFIG`, or `./shield.toml` where there is one.

    Raises:
        SettingsError: a named file is missing; any file is unreadable, no TOML, or wrong.
    """
    path = path or os.environ.get(PREFIX + "CONFIG") or None
    if path is None and not Path(DEFAULT_FILE).exists():
        return read_settings({}, plugins)
    path = Path(path or DEFAULT_FILE)
    return read_settings(_read_toml(path), plugins, path)


@at_rest()
def read_settings(
    data: Mapping[str, Any], plugins: Iterable[object] = (), path: Path | None = None
) -> ShieldSettings:
    """Validate settings given as a mapping, or read from the file at `path`.

    Raises:
        SettingsError: one line for each thing that is wrong.
        PluginError: something is wrong with a plugin that they leave on.
    """
    source = str(path) if path else "settings"
    flat = _flatten(data, source)
    if unknown := list(unknown_variables(list(ShieldSettings.model_fields))):
        raise SettingsError(*unknown)
    try:
        read = _from_arguments if path is None else _from_file
        disabled = read(_PluginChoice, flat).plugins.disable
        registry = registry_of(plugins, disabled)
        if not_there := list(_not_there(disabled, registry, source)):
            raise SettingsError(*not_there)
        registry.check()
        settings = read(settings_model(registry), flat)
        registry.check(needs_all=settings.on_plugin_error == "closed")
    except ValidationError as error:
        raise SettingsError(*describe(error, source, flat if path is None else ())) from None
    except UnreadableVariableError as error:
        raise SettingsError(_unreadable(error)) from None
    settings._registry = registry
    settings._source = source
    return settings


def _not_there(disabled: list[str], registry: Registry, source: str) -> Iterator[str]:
    """Yield what is wrong with `plugins.disable`: a name that was misspelt disables nothing."""
    names = [info.name for info in registry.infos]
    for number, name in enumerate(disabled):
        if name not in names:
            yield (
                f"{source}: plugins.disable[{number}]: found {name!r}, no plugin's name; "
                f"{nearest(name, names)}"
            )


def installed(path: str | Path | None = None) -> Registry:
    """Return the plugins that a file leaves on, also where something is wrong with one of them.

    Raises:
        SettingsError: the file cannot be read, or its `[plugins]` table is wrong.
    """
    path = path or os.environ.get(PREFIX + "CONFIG") or None
    if path is None and Path(DEFAULT_FILE).exists():
        path = DEFAULT_FILE
    data = {} if path is None else _read_toml(Path(path))
    try:
        choice = _from_file(_PluginChoice, {"plugins": data.get("plugins", {})})
    except ValidationError as error:
        raise SettingsError(*describe(error, str(path or "settings"), ())) from None
    except UnreadableVariableError as error:
        raise SettingsError(_unreadable(error)) from None
    return registry_of((), choice.plugins.disable)


def settings_model(registry: Registry) -> type[ShieldSettings]:
    """Return the model of all settings, with the keys of every registered policy and action."""
    if registry.model is None:
        registry.model = _make_model(registry)
    return registry.model


def _make_model(registry: Registry) -> type[ShieldSettings]:
    # Defaults are tuples: pydantic would copy a list for each key that a rule leaves out.
    kinds: dict[str, Any] = {
        name: (_tables_of(kind), ()) for name, kind in registry.policies.items()
    }
    chain: Any = (chain_type(registry), ())
    rule = create_model(
        "RuleSettings",
        __base__=RuleSettings,
        __doc__=RuleSettings.__doc__,
        over_limit=chain,
        **kinds,
    )
    return create_model("ShieldSettings", __base__=ShieldSettings, rules=(list[rule], []))  # type: ignore[valid-type]


def _tables_of(kind: type[Policy]) -> Any:
    """Return the type of a policy's key: tables, one table alone, or what is short for one."""
    table: Any = kind.Settings
    one: Any = table
    if kind.shorthand is not None:
        one = table | table.model_fields[kind.shorthand].annotation
    validator = BeforeValidator(_as_tables(kind), json_schema_input_type=one | list[one])
    return Annotated[list[table], validator]


def _as_tables(kind: type[Policy]) -> Callable[[Any], Any]:
    """Return what turns one table, or a bare value, of a policy into a list of tables."""

    def as_tables(value: Any) -> Any:
        items = value if isinstance(value, list) else [value]
        if kind.shorthand is None:
            return items
        return [item if isinstance(item, dict) else {kind.shorthand: item} for item in items]

    return as_tables


class _PluginChoice(BaseSettings):
    """Which plugins to leave out: read before the keys of the others can be known."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter="__", extra="ignore")

    plugins: PluginSettings = PluginSettings()


Model = TypeVar("Model", bound=BaseSettings)


def _from_arguments(model: type[Model], data: dict[str, Any]) -> Model:
    """Validate what was given in code; the environment stands in for what it leaves out."""
    return model(**data)


def _from_file(model: type[Model], data: dict[str, Any]) -> Model:
    """Validate what a file holds; the environment goes before it."""

    class FromFile(model):  # type: ignore[misc, valid-type]
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            **_others: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, InitSettingsSource(settings_cls, data)

    settings: Model = FromFile()
    return settings


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(_read_text(path))
    except FileNotFoundError:
        raise SettingsError(f"{path}: there is no such file") from None
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: is not UTF-8 text: {error}") from None
    except RecursionError:
        raise SettingsError(f"{path}: is nested too deeply to be settings") from None
    except ValueError as error:  # TOML's own, and Python's for a number of thousands of digits
        raise SettingsError(f"{path}: is not TOML: {error}") from None


def _read_text(path: Path) -> str:
    """Read a file of bounded size; what may never end, as a pipe or a device, is not read at all.

    Raises:
        OSError: it cannot be opened or read.
        SettingsError: it is no ordinary file, or too large.
        UnicodeDecodeError: it is not UTF-8.
    """
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        found = os.fstat(file.fileno())
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(found.st_mode):
            raise SettingsError(f"{path}: is no ordinary file; allowed is a file that has an end")
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise SettingsError(f"{path}: is larger than allowed, {MOST_BYTES // 1024**2} MiB")
    return data.decode("utf-8")


def _flatten(data: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Lift the `[shield]` table to the top, where the model has its keys."""
    rest = dict(data)
    table = rest.pop("shield", {})
    if not isinstance(table, Mapping):
        raise SettingsError(f"{source}: shield: found {table!r}; allowed is a table")
    known = list(ShieldSettings.model_fields)
    unknown = [(f"shield.{key}", unknown_key(key, known)) for key in table if key not in known]
    unknown += [(key, unknown_key(key, ["shield", *known])) for key in rest if key not in known]
    if unknown:
        raise SettingsError(*(f"{source}: {where}: {why.message()}" for where, why in unknown))
    return {**table, **rest}


def _unreadable(error: UnreadableVariableError) -> str:
    """Name the variable whose text is not the JSON that its list or table needs."""
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name.removeprefix(PREFIX).partition("__")[0].lower() in str(
            error
        ):
            found = "" if is_secret(name) else f"found {os.environ[name]!r}; "
            return f"environment variable {name}: {masked(found)}allowed is JSON"
    return f"environment: {error}"
