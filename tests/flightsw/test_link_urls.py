import pytest

from flightsw.errors import ConfigError
from flightsw.link.mqtt_session import MqttSettings, TlsSettings
from flightsw.link.serial import SerialSettings
from flightsw.link.urls import open_link, parse_url

GOOD = {
    "serial:///dev/ttyUSB0?baud=921600": SerialSettings(path="/dev/ttyUSB0", baud=921_600),
    "serial:///dev/pts/3": SerialSettings(path="/dev/pts/3"),
    "serial:///dev/serial/by-id/usb%20one?baud=0": SerialSettings(path="/dev/serial/by-id/usb one"),
    "socket://10.0.0.7:4001": SerialSettings(host="10.0.0.7", port=4001),
    "serial+socket://[::1]:4001?baud=9600": SerialSettings(host="::1", port=4001, baud=9600),
    "mqtt://lab.example/run-7?client=sat-03": MqttSettings((("lab.example", 1883),), "run-7", "sat-03"),
    "MQTT://one:1,two:2/a/b?client=x&qos=1&keepalive=60": MqttSettings(
        (("one", 1), ("two", 2)), "a/b", "x", qos=1, keepalive_s=60
    ),
    "mqtt://me:p%40ss%3A@one/a?client=x": MqttSettings((("one", 1883),), "a", "x", username="me", password="p@ss:"),
    "mqtts://[::1]/a?client=x&cafile=/ca.pem&certfile=/c.pem&keyfile=/k.pem": MqttSettings(
        (("::1", 8883),), "a", "x", tls=TlsSettings("/ca.pem", "/c.pem", "/k.pem")
    ),
    "mqtts://one/a?client=x&userfile=/run/secret": MqttSettings(
        (("one", 8883),), "a", "x", userfile="/run/secret", tls=TlsSettings()
    ),
}

BAD = {
    "": "scheme",
    "dev/ttyUSB0": "scheme 'dev'",
    "http://one/a": "scheme 'http'",
    "serial://dev/ttyUSB0": "host 'dev'",
    "serial:///": "device",
    "serial:///dev/x?baud=fast": "baud 'fast'",
    "serial:///dev/x?baud=49": "50 to 12000000",
    "serial:///dev/x?baud=9600&baud=9600": "'baud' twice",
    "serial:///dev/x?parity=E": "option 'parity'",
    "serial:///dev/x?baud=": "without value",
    "serial:///dev/x?baud": "options",
    "serial:///dev/x#y": "fragment",
    "socket://host": "server 'host'",
    "socket://host:0": "port 0",
    "socket://host:70000": "port 70000",
    "socket://me:pw@host:4001": "no login",
    "socket://host:4001/path": "path",
    "mqtt:///a?client=x": "server",
    "mqtt://a..b/a?client=x": "server",
    "mqtt://one,/a?client=x": "server",
    "mqtt://one?client=x": "prefix",
    "mqtt://one/a//b?client=x": "prefix",
    "mqtt://one/a/%23?client=x": "prefix",
    "mqtt://one/a": "client ''",
    "mqtt://one/a?client=a/b": "client 'a/b'",
    "mqtt://one/a?client=x&qos=2": "qos '2'",
    "mqtt://one/a?client=x&keepalive=0": "keepalive '0'",
    "mqtt://one/a?client=x&cafile=/ca.pem": "option 'cafile'",
    "mqtts://one/a?client=x&keyfile=/k": "certfile",
    "mqtt://me@one/a?client=x": "user:password@",
    "mqtt://me:secret@one/a?client=x&userfile=/f": "either",
    "mqtt://[one/a?client=x": "Invalid IPv6|server",
}


@pytest.mark.parametrize("url", GOOD)
def test_a_url_says_which_bearer_and_how(url):
    assert parse_url(url) == GOOD[url]


@pytest.mark.parametrize("url", BAD)
def test_a_wrong_url_is_refused_with_part_value_and_expectation(url):
    with pytest.raises(ConfigError, match=r"expected|Invalid") as refused:
        parse_url(url)
    assert refused.match(BAD[url])


@pytest.mark.parametrize(
    "url",
    [
        "mqtt://me:hunter2/a?client=x",
        "mqtt://me:hunter2@/a?client=x",
        "mqtt://me:hunter2@one:port/a?client=x",
        "mqtt://me:hunter2@one/#?client=x",
        "mqtt://me:hunter2@one/a?client=!",
        "mqtt://me:hunter2@one/a?client=x&what=1",
        "socket://me:hunter2@host:1",
        "serial://me:hunter2@host/dev/x",
    ],
)
def test_no_refusal_shows_a_password(url):
    with pytest.raises(ConfigError) as refused:
        parse_url(url)
    assert "hunter2" not in str(refused.value)


def test_settings_do_not_show_a_password():
    assert "hunter2" not in repr(parse_url("mqtt://me:hunter2@one/a?client=x"))


@pytest.mark.parametrize("url", [url for url in GOOD if url.lower().startswith("mqtt")])
def test_the_url_for_another_client_differs_in_the_client_only(url):
    settings = parse_url(url)
    other = parse_url(settings.url("other"))
    assert other == parse_url(settings.url("yet-another").replace("yet-another", "other"))
    assert (other.client, parse_url(other.url(settings.client))) == ("other", settings)


def test_a_node_without_client_name_is_called_by_its_number():
    assert parse_url("mqtt://one/a", client="node-7").client == "node-7"
    assert parse_url("mqtt://one/a?client=sat", client="node-7").client == "sat"


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ("cafile={missing}", "cafile"),
        ("cafile={text}", "cafile"),
        ("certfile={text}", "certfile"),
        ("userfile={missing}", "userfile"),
        ("userfile={text}", "user:password"),
    ],
)
async def test_a_file_that_is_missing_or_wrong_is_refused_when_the_link_is_opened(options, word, tmp_path):
    (tmp_path / "text").write_text("hunter2 and no more\n")
    files = {"missing": tmp_path / "missing", "text": tmp_path / "text"}
    with pytest.raises(ConfigError, match=word) as refused:
        await open_link(f"mqtts://127.0.0.1:1/a?client=x&{options.format(**files)}")
    assert "hunter2" not in str(refused.value)
