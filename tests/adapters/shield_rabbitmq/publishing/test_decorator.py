"""`@publisher` settings that are impossible, and what a decorated function keeps; no broker."""

import functools
import inspect
import subprocess
import sys

import pytest
from pika import BasicProperties

from shield import SettingsError
from shield_rabbitmq import Publisher, Publishing, publisher
from shield_rabbitmq.publishing.decorator import Route
from shield_rabbitmq.publishing.routing_key import routing_key_of

URL = "amqp://guest:guest@localhost/"


def function(order, country="de", *rest, **more):
    """Make it."""


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"url": "http://localhost"}, "url: found 'http://localhost'"),
        ({"url": None}, "url: found None"),
        ({"exchange": None}, "exchange: found None"),
        ({"routing_key": 1}, "routing_key: found 1"),
        ({"routing_key": "orders.{"}, "routing_key: 'orders.{' is no template"),
        ({"routing_key": "orders.{}"}, "routing_key: found 'orders.{}'"),
        ({"routing_key": "{0}"}, "routing_key: found '{0}'"),
        ({"properties": {"delivery_mode": 2}}, "properties: found"),
        ({"shield": {"rules": [{}]}}, "rules"),
    ],
)
def test_impossible_settings_are_refused_where_they_stand(settings, said):
    """At decoration, before any message: the error says which setting, and what was found."""
    with pytest.raises(SettingsError) as caught:
        publisher(**{"url": URL, **settings})(function)
    assert said in str(caught.value)


def test_a_template_names_arguments_only():
    """A name that the function has no argument for is an error at decoration."""
    with pytest.raises(SettingsError, match=r"names 'oder', .* allowed are order, country"):
        publisher(URL, routing_key="{oder.id}")(lambda order, country: b"")


@pytest.mark.parametrize(
    "wrong", [int, None, "text", staticmethod(function), classmethod(function)]
)
def test_only_functions_are_decorated(wrong):
    """Classes and texts are refused; so are static and class methods from outside."""
    with pytest.raises(SettingsError, match="@publisher: found"):
        publisher(URL)(wrong)


def test_generators_are_refused():
    """They make more than one message."""

    def generates():
        yield b""

    with pytest.raises(SettingsError, match="is a generator"):
        publisher(URL)(generates)


def test_a_decorated_function_looks_like_itself():
    """Name, docstring, signature and the function itself are there."""
    decorated = publisher(URL)(function)
    assert (decorated.__name__, decorated.__doc__) == ("function", "Make it.")
    assert inspect.signature(decorated) == inspect.signature(function)
    assert decorated.__wrapped__ is function


def test_callables_without_a_name_are_decorated_too():
    """Such as a partial."""
    assert publisher(URL)(functools.partial(function, 1))


@pytest.mark.parametrize(
    ("template", "args", "kwargs", "key"),
    [
        ("plain", (1,), {}, "plain"),
        ("{{}}", (1,), {}, "{}"),
        ("orders.{country}", (1,), {}, "orders.de"),
        ("{order[id]}.{country}", ({"id": 7}, "fr"), {}, "7.fr"),
        ("{order.real}", (5,), {}, "5"),
        ("{tenant}", (1,), {"tenant": "a"}, "a"),
        (lambda order, country: f"{order}-{country}", (1, "x"), {}, "1-x"),
    ],
)
def test_routing_keys_are_made_from_the_arguments(template, args, kwargs, key):
    """By position, name or default, attributes and items included."""
    assert routing_key_of(template, function)(*args, **kwargs) == key


def test_the_package_needs_pika_only_for_its_names():
    """Shield can ask its plugin where pika is not installed."""
    program = "import sys; sys.modules['pika'] = None; import shield_rabbitmq; print('ok')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout == b"ok\n"


def published(made, properties=None):
    """The properties that a decorated function's message gets."""
    route = Route(Publisher, "", lambda: "queue", properties, True)
    return route.message(made, "function", (), {})[3]


@pytest.mark.parametrize("default", [None, BasicProperties(content_type="a/b")])
@pytest.mark.parametrize("own", [None, BasicProperties(app_id="shop")])
@pytest.mark.parametrize("headers", [None, {"tenant": "a"}])
def test_messages_are_persistent_unless_their_properties_say_otherwise(default, own, headers):
    """Also where they say something else; what the caller has is left as it is."""
    assert published(Publishing(b"", own, headers=headers), default).delivery_mode == 2
    assert all(given is None or given.delivery_mode is None for given in (default, own))
    transient = BasicProperties(delivery_mode=1)
    assert published(Publishing(b"", transient, headers=headers), default).delivery_mode == 1
    assert published(Publishing(b"", headers=headers), transient).delivery_mode == 1
