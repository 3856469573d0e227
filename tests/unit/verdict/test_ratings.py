"""A sheet is taken whole or refused with every wrong row named."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
import run_factory as factory

from understudy.verdict.ratings import RatingsError, examine_document, parse

HOSTS = ["titan", "panda"]


def rows() -> list[dict[str, Any]]:
    return [{"utterance": name, "titan": 4, "panda": 5} for name in factory.IDS]


def taken() -> list[dict[str, Any]]:
    return [{"utterance": name, "pass": 1, "titan": 4, "panda": 5} for name in factory.IDS]


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
    assert read(text) == {"identity_matches": None, "scores": taken()}


@pytest.mark.parametrize("name", ["ab.json", "ab.txt", "ab.csv"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_json_forms(name: str, bom: str) -> None:
    assert read(bom + json.dumps(rows()), name)["scores"] == taken()
    whole = {"scores": rows()[::-1], "run_id": factory.RUN_ID, "identity_matches": False}
    assert read(bom + json.dumps(whole, indent=1), name, run_id=factory.RUN_ID) == {
        "identity_matches": False,
        "scores": taken(),
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


def test_what_is_not_csv_is_said_on_one_line() -> None:
    problems = refuse(csv_text(u10='"u10"x,4,5').replace(",", "\t"))
    assert problems[0] == "line 11: it is not CSV ('tab' expected after '\"')"


def test_a_sheet_has_one_pass() -> None:
    (problem, *_) = refuse(csv_text(header="utterance,pass,titan,panda"))
    assert 'unknown column "pass"' in problem


# A ratings.json, which anybody may have edited


def document(passes: int = 2) -> dict[str, Any]:
    return factory.listened([4] * 10 * passes, [5] * 10 * passes)


def examined(ratings: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    return examine_document(ratings, utterances=factory.IDS, hosts=HOSTS)


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_every_complete_pass_has_one_row_per_utterance(passes: int) -> None:
    ratings = document(passes)
    ratings["scores"].reverse()
    given, problems = examined(ratings)
    assert problems == []
    assert given["scores"] == document(passes)["scores"]
    assert given["listener"]["impostor"][0]["score"] == 1


def test_version_1_is_one_pass_without_a_listener() -> None:
    given, problems = examined(factory.ratings(4, 5))
    assert problems == []
    assert given["scores"] == document(1)["scores"]
    assert given["listener"] is None


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("scores.12.titan", 0, "row 13 (pass 2, u03): titan: saw 0, expected a whole number"),
        ("scores.12.titan", 6, "row 13 (pass 2, u03): titan: saw 6, expected a whole number"),
        ("scores.12.titan", 4.5, "row 13 (pass 2, u03): titan: saw 4.5, expected a whole"),
        ("scores.12.titan", "4", 'row 13 (pass 2, u03): titan: saw "4", expected a whole'),
        ("scores.12.titan", factory.REMOVED, "row 13 (pass 2, u03): titan: no score"),
        ("scores.12.spare", 4, "row 13 (pass 2, u03): spare is none of titan, panda"),
        ("scores.12", 7, "row 13: saw 7, expected an object"),
        ("scores.12", factory.REMOVED, "pass 2, u03: its row is missing, expected one per"),
        ("scores.12.utterance", "u04", "row 14: pass 2, u04 was already scored at row 13"),
        ("scores.12.pass", 1, "row 13: pass 1, u03 was already scored at row 3"),
        ("scores.12.pass", 0, "row 13 (u03): pass: saw 0, expected a pass: 1, 2"),
        ("scores.12.pass", True, "row 13 (u03): pass: saw true, expected a pass: 1, 2"),
        ("scores.12.pass", "2", 'row 13 (u03): pass: saw "2", expected a pass: 1, 2'),
        ("scores.12.pass", factory.REMOVED, "row 13 (u03): pass: saw null, expected a pass"),
        ("scores.12.pass", 4, "pass 4: there is no pass 3, expected 1, 2, …"),
        ("scores", {}, "scores: saw {}, expected a list of rows"),
        ("scores", [], "pass 1, u01: its row is missing"),
        ("identity_matches", "no", 'identity_matches: saw "no", expected true, false or null'),
        ("given_before_audio", None, "given_before_audio: saw null, expected true or false"),
        ("listener", 3, "listener: saw 3, expected an object or null"),
        ("listener.repeats", None, "listener: repeats: saw null, expected a list of rows"),
        ("listener.repeats.0", [], "listener: repeats, row 1: saw [], expected an object"),
        ("listener.repeats.0.first", 6, "listener: repeats, row 1: first: saw 6, expected"),
        ("listener.same_host.0.b", "5", 'listener: same_host, row 1: b: saw "5", expected'),
        ("listener.impostor.0.score", 0, "listener: impostor, row 1: score: saw 0, expected"),
        ("listener.impostor.0.pass", -1, "listener: impostor, row 1: pass: saw -1, expected"),
        ("listener.impostor.0.utterance", "u11", "listener: impostor, row 1: utterance: saw"),
        ("listener.telephone.0.noticed", 1, "listener: telephone, row 1: noticed: saw 1"),
    ],
)
def test_an_edited_file_is_named_row_by_row(path: str, value: Any, problem: str) -> None:
    ratings = document()
    factory.change(ratings, path, value)
    _, problems = examined(ratings)
    assert any(found.startswith(problem) for found in problems), problems


def test_a_pass_that_was_not_finished() -> None:
    ratings = document()
    del ratings["scores"][15:]
    assert len(examined(ratings)[1]) == 5


def test_version_1_knows_no_pass() -> None:
    ratings = factory.ratings()
    ratings["scores"][0]["pass"] = 1
    assert examined(ratings)[1] == ["row 1 (u01): pass is none of titan, panda"]


def test_what_was_seen_is_not_quoted_at_length() -> None:
    ratings = document()
    ratings["identity_matches"] = ["x" * 10_000]
    assert len(examined(ratings)[1][0]) < 200


# What spreadsheets write


SEMICOLONS = csv_text().replace(",", ";")


@pytest.mark.parametrize(
    "text",
    [
        SEMICOLONS,
        SEMICOLONS.replace(";4;5", ";4,0;5,00"),
        SEMICOLONS.replace(";4;5", ";4.0;5"),
        SEMICOLONS.replace("\n", ";;;\n") + ";;;;\n;;;;\n",
        SEMICOLONS.replace("\n", "\r"),
        f"sep=;\n{SEMICOLONS}",
        f'"sep=;"\r\n{SEMICOLONS}',
        f"SEP=,\n{csv_text()}",
        csv_text().replace(",", "\t"),
        csv_text().replace(",", "\t").replace("\t4\t", "\t4,0\t"),
        csv_text().replace(",4,", ',"4,0",'),
        csv_text().replace("4", "\uff14").replace("u0", "\uff550"),
        csv_text().replace(",", "\u00a0,\u00a0").replace("5", "5\u200b\u202f"),
        csv_text(header="Utterance,TITAN,Panda").replace("u0", "U0"),
    ],
)
def test_what_spreadsheets_write(text: str) -> None:
    assert read(text) == {"identity_matches": None, "scores": taken()}


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        (SEMICOLONS.replace("u03;4;5", "u03,4,5"), 'line 4: utterance: saw "u03,4,5"'),
        (SEMICOLONS.replace("u03;4;5", "u03;4,5;5"), 'line 4 (u03): titan: saw "4,5"'),
        (csv_text(u03="u03,4,0,5,0"), "line 4 (u03): saw 5 cells, expected 3"),
        (SEMICOLONS.replace("u03;4;5", "u03;4;;5"), "line 4 (u03): saw 4 cells, expected 3"),
        (
            f"sep=;\n{csv_text()}",
            "line 2: no column utterance, expected the header utterance;titan",
        ),
        (
            f"sep=|\n{csv_text()}",
            'line 1: saw "sep=|", expected one of a comma, a semicolon, a tab',
        ),
        (csv_text(header="utterance,titan,Titan,panda"), "line 1: column titan stands twice"),
        (csv_text(u03="u03,4\0,5"), "line 4: it holds a NUL character, which is no text"),
        (csv_text(u03="u03,\uff19,5"), "line 4 (u03): titan: saw 9"),
        (csv_text(u03="u03,4/5,5"), 'line 4 (u03): titan: saw "4/5"'),
        (csv_text(u03="u03,4e0,5"), 'line 4 (u03): titan: saw "4e0"'),
        (csv_text(u03="u03,+4,5"), 'line 4 (u03): titan: saw "+4"'),
    ],
)
def test_what_can_be_read_in_two_ways_is_not_read(text: str, seen: str) -> None:
    assert refuse(text)[0].startswith(seen)


def test_hosts_that_differ_in_case_only() -> None:
    text = "utterance,Titan,titan\n" + "".join(f"{name},4,5\n" for name in factory.IDS)
    found = parse(text, "ab.csv", utterances=factory.IDS, hosts=["titan", "Titan"])
    assert found["scores"][0] == {"utterance": "u01", "pass": 1, "titan": 5, "Titan": 4}
    with pytest.raises(RatingsError, match='unknown column "TITAN"'):
        parse(text.replace("Titan", "TITAN"), "a", utterances=factory.IDS, hosts=["titan", "Titan"])


@pytest.mark.parametrize(
    "text",
    [
        csv_text() + "u99,4,5\n" * 100_000,
        csv_text(header="utterance,titan,panda" + ",x" * 300_000),
        csv_text(u01="u01,4,5" + ",6" * 300_000),
        json.dumps([*rows(), *[{}] * 90_000]),
        json.dumps([{**rows()[0], **{f"k{n}": n for n in range(90_000)}}]),
        json.dumps({"scores": [], **{f"k{n}": n for n in range(90_000)}}),
        '{"a":1,' + ",".join(f'"k{n % 40_000}":1' for n in range(80_000)) + "}",
        "[{" + ",".join(f'"k{n % 40_000}":1' for n in range(80_000)) + "}]",
        "x" * (1 << 20),
        '"' + "\n" * (1 << 20),
    ],
)
def test_a_sheet_of_any_size_gets_a_short_answer_soon(text: str) -> None:
    began = time.process_time()
    problems = refuse(text)
    assert time.process_time() - began < 4
    assert len(problems) <= 51
    assert sum(map(len, problems)) < 20_000
    assert all(problem.isprintable() for problem in problems)


def test_the_list_of_problems_says_how_many_more() -> None:
    problems = refuse("utterance,titan,panda\n" + "u99,9,9\n" * 2_000)
    assert (len(problems), problems[-1]) == (51, "and 5,960 more")
