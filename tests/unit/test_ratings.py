"""A sheet is taken whole or refused with every wrong row named."""

from __future__ import annotations

import json
from typing import Any

import pytest
import run_factory as factory
from ansible.module_utils.understudy.ratings import RatingsError, parse

HOSTS = ["titan", "panda"]


def rows() -> list[dict[str, Any]]:
    return [{"utterance": name, "titan": 4, "panda": 5} for name in factory.IDS]


def csv_text(**replaced: str) -> str:
    """A sheet in which single lines (``u03="u03,6,5"``) are replaced; an empty one is left out."""
    lines = [replaced.get(name, f"{name},4,5") for name in factory.IDS]
    header = replaced.get("header", "utterance,titan,panda")
    return "\n".join([header, *[line for line in lines if line]]) + "\n"


def read(text: str, name: str = "ab.csv", **options: Any) -> dict[str, Any]:
    return parse(text, name, utterances=factory.IDS, hosts=HOSTS, **options)


def refuse(text: str, name: str = "ab.csv", **options: Any) -> list[str]:
    with pytest.raises(RatingsError) as refused:
        read(text, name, **options)
    assert all(line.startswith(f"{name}: ") for line in str(refused.value).splitlines())
    return refused.value.problems


@pytest.mark.parametrize(
    "text",
    [
        csv_text(),
        csv_text().replace("\n", "\r\n"),
        "\ufeff" + csv_text(),
        csv_text().rstrip("\n"),
        "\n" + csv_text(u05="\nu05,4,5\n,,"),
        csv_text(u01=' u01 , 4 ,"5"'),
        csv_text(header=" utterance , titan , panda "),
        "\n".join(",".join(reversed(line.split(","))) for line in csv_text().splitlines()),
        "\n".join([csv_text().splitlines()[0], *reversed(csv_text().splitlines()[1:])]),
    ],
)
def test_csv_forms(text: str) -> None:
    assert read(text) == {"identity_matches": None, "scores": rows()}


@pytest.mark.parametrize("name", ["ab.json", "ab.txt", "ab.csv"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_json_forms(name: str, bom: str) -> None:
    assert read(bom + json.dumps(rows()), name)["scores"] == rows()
    whole = {"scores": rows()[::-1], "run_id": factory.RUN_ID, "identity_matches": False}
    assert read(bom + json.dumps(whole, indent=1), name, run_id=factory.RUN_ID) == {
        "identity_matches": False,
        "scores": rows(),
    }


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("u03,6,5", "titan: saw 6"),
        ("u03,0,5", "titan: saw 0"),
        ("u03,4.5,5", 'titan: saw "4.5"'),
        ("u03,4,-1", 'panda: saw "-1"'),
        ("u03,4,10", 'panda: saw "10"'),
        ("u03,NaN,5", 'titan: saw "NaN"'),
        ("u03,true,5", 'titan: saw "true"'),
        ("u03,²,5", 'titan: saw "²"'),
        ("u03,٤,5", 'titan: saw "٤"'),
        ("u03,,5", "titan: no score"),
        ("u03,4", "panda: no score"),
        ("u03,4,  ", "panda: no score"),
    ],
)
def test_csv_names_the_line_and_the_cell(line: str, seen: str) -> None:
    (problem,) = refuse(csv_text(u03=line))
    assert problem == f"line 4 (u03): {seen}, expected a whole number from 1 to 5"


@pytest.mark.parametrize(
    ("score", "seen"),
    [
        (0, "saw 0"),
        (6, "saw 6"),
        (4.5, "saw 4.5"),
        (4.0, "saw 4.0"),
        ("4.5", 'saw "4.5"'),
        ("4", 'saw "4"'),
        (True, "saw true"),
        (float("nan"), "saw NaN"),
        ([4], "saw [4]"),
        (None, "no score"),
    ],
)
def test_json_names_the_row_and_the_utterance(score: Any, seen: str) -> None:
    sheet = rows()
    sheet[2]["titan"] = score
    (problem,) = refuse(json.dumps(sheet), "ab.json")
    assert problem == f"row 3 (u03): titan: {seen}, expected a whole number from 1 to 5"


def test_rows_that_are_missing_unknown_or_repeated() -> None:
    assert refuse(csv_text(u03="")) == ["u03: its row is missing, expected one per utterance"]
    unknown, missing = refuse(csv_text(u03="u33,4,5"))
    assert unknown.startswith('line 4: utterance: saw "u33", expected one of u01, u02')
    assert missing.startswith("u03: ")
    (repeated,) = refuse(csv_text(u03="u03,4,5\nu03,4,5"))
    assert repeated == "line 5: u03 was already scored at line 4"
    sheet = [*rows(), {"utterance": ["u01"], "titan": 4, "panda": 4}, 7]
    odd, scalar = refuse(json.dumps(sheet), "ab.json")
    assert odd.startswith('row 11: utterance: saw ["u01"]')
    assert scalar.startswith("row 12: saw 7")


@pytest.mark.parametrize(
    ("header", "seen"),
    [
        ("utterance,titan", "line 1: no column panda"),
        ("utterance,titan,panda,notes", 'line 1: unknown column "notes"'),
        ("utterance;titan;panda", "line 1: no column utterance"),
        ("utterance,titan,titan", "line 1: column titan stands twice"),
        ("u00,4,5", "line 1: no column utterance"),
    ],
)
def test_csv_headers(header: str, seen: str) -> None:
    problems = refuse(csv_text(header=header))
    assert any(problem.startswith(seen) for problem in problems)
    assert all("expected the header utterance,titan,panda" in problem for problem in problems)


def test_unknown_and_missing_hosts_in_json() -> None:
    sheet = rows()
    sheet[0]["spare"] = 4
    del sheet[9]["panda"]
    first, last = refuse(json.dumps(sheet), "ab.json")
    assert first == "row 1 (u01): spare is none of titan, panda"
    assert last.startswith("row 10 (u10): panda: no score")


def test_all_problems_at_once() -> None:
    # u04 is left out, so that u05 stands on line 5
    problems = refuse(csv_text(u02="u02,9,5", u04="", u05="u05,4,5,6", u07="u07,,0"))
    assert [problem.partition(":")[0] for problem in problems] == [
        "line 5 (u05)",
        "line 3 (u02)",
        "line 7 (u07)",
        "line 7 (u07)",
        "u04",
        "u05",
    ]


@pytest.mark.parametrize("text", ["", "  \r\n", "\ufeff"])
@pytest.mark.parametrize("name", ["ab.csv", "ab.json"])
def test_empty(text: str, name: str) -> None:
    assert refuse(text, name)[0].startswith("it is empty")


@pytest.mark.parametrize("text", ["utterance,titan,panda\n", "[]", '{"scores": []}'])
def test_no_rows(text: str) -> None:
    assert len(refuse(text)) == 10


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("[{", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("{}", "scores: saw null"),
        ('{"scores": {"u01": 4}}', "scores: saw"),
        ('{"scores": [], "run_id": "20260101-000000Z"}', 'run_id: saw "20260101-000000Z"'),
        ('{"scores": [], "identity_matches": "yes"}', 'identity_matches: saw "yes"'),
        ('{"scores": [], "identity_matches": 1}', "identity_matches: saw 1"),
        ('{"scores": [], "mean": 4}', 'unknown key "mean"'),
        ('{"scores": [], "scores": []}', "scores stands twice"),
        ('[{"utterance": "u01", "titan": 2, "titan": 5, "panda": 5}]', "row 1: titan stands twice"),
    ],
)
def test_json_of_another_form(text: str, seen: str) -> None:
    assert refuse(text, "ab.json", run_id=factory.RUN_ID)[0].startswith(seen)


def test_an_unclosed_quote_is_not_csv() -> None:
    assert "it is not CSV" in refuse(csv_text(u10='u10,4,"5'))[0]
