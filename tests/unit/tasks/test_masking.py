"""Secrets are masked in any text, and what is none is left alone."""

import io
import logging
import sys

import pytest

from tasks.masking import MASK, mask_logging, mask_tracebacks, masked, masked_value

SHA256 = 8 * "0123abcd"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:secret@mlflow.example:5000/a", "https://***@mlflow.example:5000/a"),
        ("postgresql+psycopg2://me:p@ss@db/x", "postgresql+psycopg2://***@db/x"),
        ("s3.example/b?X-Amz-Signature=ab12&x=1", "s3.example/b?X-Amz-Signature=***&x=1"),
        ("https://blob.example/b?sv=1&sig=ab%2B12", "https://blob.example/b?sv=1&sig=***"),
        ("https://hooks.slack.com/services/T0/B0/abc: 404", "https://hooks.slack.com/***: 404"),
        ("Authorization: Basic dXNlcjpwdw==", "Authorization: Basic ***"),
        ("{'authorization': 'Bearer abcdef12'}", "{'authorization': 'Bearer ***'}"),
        ("sent Bearer abcdef.ghijkl", "sent Bearer ***"),
        ("host=db password=correcthorse user=me", "host=db password=*** user=me"),
        ('{"api_key": "abcdefgh"}', '{"api_key": "***"}'),
        ("aws_secret_access_key = abcdefgh/ijkl", "aws_secret_access_key = ***"),
        ("hub_token: abcdefgh", "hub_token: ***"),
        ("AKIAIOSFODNN7EXAMPLE is not valid", "*** is not valid"),
        (f"hf_{34 * 'a'}", "***"),
        (f"sk-proj-{20 * 'a1'}", "***"),
        (f"ghp_{36 * 'a'}", "***"),
        (f"github_pat_{30 * 'a'}", "***"),
        (f"glpat-{20 * 'a'}", "***"),
        (f"pnu_{36 * 'a'}", "***"),
        (f"xoxb-1234567890-{10 * 'a'}", "***"),
        (f"eyJ{20 * 'a'}.eyJ{20 * 'b'}.{20 * 'c'}", "***"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\n", "***\n"),
    ],
)  # fmt: skip
def test_a_secret_is_masked_by_its_form_and_once_only(text, shown):
    assert masked(text) == shown
    assert masked(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        SHA256,
        f"ovis.model_digest={SHA256}",
        "resuming from models/.resume/" + SHA256 + "/checkpoint-40",
        "task-evaluation-with-long-name-2 and disk-usage-of-all-folders-1",
        "eos_token: <|im_end|>, max_new_tokens=16777216",
        "Basic evaluation of a token; the key is to try",
        "write to someone@example.com about s3://bucket/key and sqlite:////tmp/mlflow.db",
        "the secret: none",
    ],
)
def test_what_is_no_secret_is_left_alone(text):
    assert masked(text) == text


@pytest.mark.parametrize(
    "name", ["HF_TOKEN", "PREFECT_API_KEY", "MLFLOW_TRACKING_PASSWORD", "PGPASSWORD", "MY_WEBHOOK"]
)
def test_the_value_of_a_secret_variable_is_masked_wherever_it_turns_up(monkeypatch, name):
    monkeypatch.setenv(name, 'sw0rd"fish/1')
    assert masked('no sw0rd"fish/1 please') == "no *** please"
    assert masked("as a path: sw0rd%22fish%2F1") == "as a path: ***"
    assert masked(r'{"as json": "sw0rd\"fish/1"}') == '{"as json": "***"}'


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOKENIZERS_PARALLELISM", "disabled now"),
        ("KEYBOARD_LAYOUT", "us-international"),
        ("SSH_KEY_FILE", "/home/me/.ssh/id_ed25519"),
        ("API_KEY", "short"),
        ("DB_PASSWORD", "postgres"),
        ("MAX_TOKENS", "16777216"),
    ],
)
def test_a_value_that_is_no_secret_or_a_common_word_is_shown(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert masked(f"here: {value}") == f"here: {value}"


def test_the_longer_of_two_secrets_is_masked_whole(monkeypatch):
    monkeypatch.setenv("A_TOKEN", "abcdefgh")
    monkeypatch.setenv("B_TOKEN", "abcdefghijkl")
    assert masked("abcdefghijkl") == MASK


def test_a_setting_with_a_secret_name_is_masked_whatever_its_value():
    assert masked_value("train.hub_token", "some words of mine") == MASK
    assert masked_value("train.text_max_length", "16777216") == "16777216"


@pytest.fixture
def stream():
    """What a handler that is not ours writes, while logging is masked."""
    before = logging.getLogRecordFactory()
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    logger = logging.getLogger("somebody.else")
    logger.addHandler(handler)
    mask_logging()
    yield written
    logger.removeHandler(handler)
    logging.setLogRecordFactory(before)


def test_every_logger_is_masked_with_its_arguments_and_tracebacks(stream, monkeypatch):
    monkeypatch.setenv("DB_PASSWORD", "sw0rdfish")
    logger = logging.getLogger("somebody.else")
    logger.warning("logging in as %s at %s", "me", "https://me:pw@host/")
    logger.warning("%d %% of sw0rd%s", 5, "fish")
    try:
        raise ValueError("sw0rdfish is wrong")  # noqa: TRY301
    except ValueError:
        logger.exception("that failed")
    assert "logging in as me at https://***@host/" in stream.getvalue()
    assert "5 % of ***" in stream.getvalue()
    assert "ValueError: *** is wrong" in stream.getvalue()
    assert "sw0rdfish" not in stream.getvalue()


def test_a_record_that_does_not_fit_its_arguments_is_left_to_its_handlers(
    stream, monkeypatch, capsys
):
    logger = logging.getLogger("somebody.else")
    monkeypatch.setattr(logger, "propagate", False)  # pytest's handler would raise
    logger.warning("%d of them", "seven")
    assert "--- Logging error ---" in capsys.readouterr().err


def test_logging_is_masked_once_however_often_it_is_asked_for(stream):
    before = logging.getLogRecordFactory()
    mask_logging()
    assert logging.getLogRecordFactory() is before


def test_what_nobody_caught_is_printed_masked(monkeypatch, capsys):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    mask_tracebacks()
    error = ValueError("https://me:pa55word@host/ does not answer")
    sys.excepthook(ValueError, error, None)
    assert capsys.readouterr().err == "ValueError: https://***@host/ does not answer\n"
