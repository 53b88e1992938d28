# SPDX-License-Identifier: Apache-2.0
"""``[[export]]``: what is refused, with the entry and the key; what is read; secrets that never show."""

from datetime import timedelta
from pathlib import Path

import pytest

from everyhop.auditlog import Kind
from everyhop.core.errors import SettingsError, Unavailable
from everyhop.exports import Format, JsonlSettings, OtlpSettings, SyslogSettings, WebhookSettings
from everyhop.runtime.export_settings import parse_exports, read_secret
from everyhop.runtime.settings import Settings, load_settings

FILE = {"name": "file", "type": "jsonl", "path": "/var/log/x.jsonl"}
SYSLOG = {"name": "siem", "type": "syslog", "host": "siem.example"}
HOOK = {"name": "hook", "type": "webhook", "url": "https://a.example/", "secrets": [{"file": "/s"}]}
OTLP = {"name": "otel", "type": "otlp", "url": "https://a.example/v1/logs"}


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("x", "each entry is a table"),
        ({}, "type is one of"),
        (FILE | {"type": "kafka"}, "type is one of"),
        (FILE | {"type": ["jsonl"]}, "type is one of"),
        (FILE | {"nmae": "x"}, "unknown key 'nmae'"),
        (FILE | {"url": "x"}, "unknown key 'url'"),
        (FILE | {"name": "A"}, "name has"),
        (FILE | {"name": ""}, "name has"),
        (FILE | {"name": 7}, "name is a text"),
        (FILE | {"format": "xml"}, "format is one of"),
        (FILE | {"path": "relative"}, "path is an absolute"),
        (FILE | {"path": None}, "path is an absolute"),
        (FILE | {"only": {"kind": []}}, "only is a table"),
        (FILE | {"only": {"kinds": ["finding", "findin"]}}, "no kind 'findin'"),
        (FILE | {"only": {"kinds": "finding"}}, "only.kinds is a list"),
        (FILE | {"only": {"denied": "yes"}}, "only.denied is true or false"),
        (FILE | {"batch": 0}, "batch is a whole number"),
        (FILE | {"batch": True}, "batch is a whole number"),
        (FILE | {"timeout": "1h"}, "timeout is between"),
        (FILE | {"timeout": 5}, "timeout is a text"),
        (FILE | {"period": "3"}, "is not a duration"),
        (FILE | {"keep": -1}, "keep is a whole number"),
        ({"name": "s", "type": "syslog"}, "either host or socket"),
        (SYSLOG | {"socket": "/dev/log"}, "either host or socket"),
        ({"name": "s", "type": "syslog", "socket": "/dev/log", "ca": "/ca"}, "neither port nor TLS"),
        (SYSLOG | {"facility": "locla0"}, "no facility"),
        (SYSLOG | {"enterprise": "everyhop"}, "enterprise is"),
        (SYSLOG | {"port": 0}, "port is"),
        (SYSLOG | {"max_bytes": 480}, "max_bytes is"),
        (SYSLOG | {"certificate": "/c"}, "belong together"),
        (HOOK | {"url": "http://a.example/"}, "begins with https"),
        (HOOK | {"secrets": []}, "secrets is a list"),
        (HOOK | {"secrets": ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]}, "never the secret itself"),
        (HOOK | {"secrets": [{"value": "x"}]}, "never the secret itself"),
        (HOOK | {"secrets": [{"env": "A", "file": "/x"}]}, "never the secret itself"),
        (SYSLOG | {"host": ""}, "host is a name"),
        (SYSLOG | {"host": "a b"}, "host is a name"),
        (HOOK | {"secrets": [{"env": "a-b"}]}, "name of a variable"),
        (HOOK | {"secrets": [{"file": "s"}]}, "file is an absolute"),
        (OTLP | {"format": "ocsf"}, "form of its own"),
        (OTLP | {"headers": {"a b": {"file": "/x"}}}, "headers is a table"),
        (OTLP | {"headers": {"authorization": "Bearer x"}}, "never the secret itself"),
        (OTLP | {"resource": {"a": 1}}, "resource is a table"),
    ],
)
def test_what_is_refused(entry, says):
    with pytest.raises(SettingsError) as caught:
        parse_exports([FILE | {"name": "first"}, entry])
    assert says in caught.value.message
    assert "whsec_M" not in caught.value.message
    if isinstance(entry, dict):
        assert caught.value.message.startswith("entry 2 (")


def test_one_name_twice_and_too_many():
    with pytest.raises(SettingsError, match="two of this name"):
        parse_exports([FILE, SYSLOG | {"name": "file"}])
    with pytest.raises(SettingsError, match="at most"):
        parse_exports([FILE | {"name": f"n{n}"} for n in range(33)])


def test_defaults():
    file, siem, hook, otel = parse_exports([FILE, SYSLOG, HOOK, OTLP])
    assert isinstance(file, JsonlSettings)
    assert (file.format, file.path, file.batch) == (Format.OCSF, Path("/var/log/x.jsonl"), 500)
    assert isinstance(siem, SyslogSettings)
    assert (siem.host, siem.port, siem.max_bytes, siem.facility) == ("siem.example", 6514, 8192, 10)
    assert isinstance(hook, WebhookSettings)
    assert hook.batch == 1
    assert isinstance(otel, OtlpSettings)
    assert otel.url == "https://a.example/v1/logs"


def test_everything_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    file = tmp_path / "everyhop.toml"
    file.write_text(
        """
        [[export]]
        name = "siem"
        type = "syslog"
        format = "cef"
        host = "10.0.0.1"
        server_name = "siem.example"
        ca = "/etc/siem-ca.pem"
        facility = "local3"
        window = "8s"
        only = {kinds = ["decision", "finding"], denied = true}

        [[export]]
        name = "hook"
        type = "webhook"
        url = "https://a.example/"
        secrets = [{env = "HOOK_SECRET"}]
        batch = 50
        longest_pause = "1m"
        """
    )
    settings = load_settings(file, {})
    siem, hook = settings.export
    assert siem.only.kinds == {Kind.DECISION, Kind.FINDING}
    assert siem.only.denied
    assert (siem.facility, siem.window, siem.tls.server_name) == (19, timedelta(seconds=8), "siem.example")
    assert hook.secrets[0]().reveal().startswith(b"whsec_")
    assert "MfKQ" not in repr(settings)
    assert hook.longest_pause == timedelta(minutes=1)


def test_the_file_and_the_variable_are_named_in_errors(tmp_path):
    file = tmp_path / "everyhop.toml"
    file.write_text('[[export]]\nname = "x"\ntype = "jsonl"\npaht = "/x"\n')
    with pytest.raises(
        SettingsError, match=r"everyhop\.toml: export: entry 1 \(x\): unknown key 'paht'"
    ) as caught:
        load_settings(file, {})
    assert "path" in caught.value.hint
    with pytest.raises(SettingsError, match="EVERYHOP_EXPORT: export must be"):
        load_settings(None, {"EVERYHOP_EXPORT": "x"})
    assert Settings().export == ()


@pytest.mark.parametrize("content", [b"", b" \n", b"x" * 70_000])
def test_secret_files_that_hold_nothing_of_use(tmp_path, content):
    path = tmp_path / "secret"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(Unavailable):
        read_secret({"file": str(path)})()


def test_a_variable_is_read_when_it_is_needed(monkeypatch):
    read = read_secret({"env": "EVERYHOP_TEST_SECRET"})
    for value in (None, "", " "):
        if value is not None:
            monkeypatch.setenv("EVERYHOP_TEST_SECRET", value)
        with pytest.raises(Unavailable, match="EVERYHOP_TEST_SECRET is empty"):
            read()
    monkeypatch.setenv("EVERYHOP_TEST_SECRET", "x")
    assert read().reveal() == b"x"


def test_a_secret_that_everybody_reads_is_none(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(b"x")
    path.chmod(0o604)
    with pytest.raises(Unavailable, match="everybody") as caught:
        read_secret({"file": str(path)})()
    assert "chmod" in caught.value.hint
    path.chmod(0o640)
    assert read_secret({"file": str(path)})().reveal() == b"x"
    path.write_bytes(b"y")
    assert read_secret({"file": str(path)})().reveal() == b"y"
    path.unlink()
    with pytest.raises(Unavailable, match="cannot be read"):
        read_secret({"file": str(path)})()
