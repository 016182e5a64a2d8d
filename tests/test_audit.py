"""What the audit of the locked versions decides."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from scripts import audit

FIXED = {"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["1.1"]}
OPEN = {"id": "PYSEC-2", "aliases": [], "fix_versions": []}


def package(name: str, *faults: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "version": "1.0", "vulns": list(faults)}


def skipped(name: str) -> dict[str, Any]:
    return {"name": name, "skip_reason": f"Dependency not found: {name} (1.0)"}


class Service:
    """pip-audit, as it answers for one service after the other."""

    def __init__(self, *answers: list[dict[str, Any]] | tuple[int, str]) -> None:
        self.answers = list(answers)
        self.asked: list[Sequence[str]] = []

    def __call__(self, arguments: Sequence[str]) -> tuple[int, str, str]:
        self.asked.append(arguments)
        answer = self.answers.pop(0)
        if isinstance(answer, tuple):
            return answer[0], "", answer[1]
        found = any(item.get("vulns") for item in answer)
        return int(found), json.dumps({"dependencies": answer, "fixes": []}), ""


AWAY = (1, "Traceback ...\nConnectionError: no such host")


def test_nothing_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    service = Service([package("a"), package("b")])
    assert audit.main(["ci.txt"], service) == 0
    assert "no known vulnerabilities" in capsys.readouterr().out
    assert len(service.asked) == 1


def test_what_another_version_mends_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main(["ci.txt"], Service([package("a", FIXED), package("b")])) == 1
    assert "VULNERABLE: a 1.0: PYSEC-1, mended in 1.1" in capsys.readouterr().out


def test_what_no_version_mends_is_told_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main(["ci.txt"], Service([package("a", OPEN)])) == 0
    assert "without a remedy: a 1.0: PYSEC-2" in capsys.readouterr().out


def test_services_that_are_away_fail_nothing_and_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main(["ci.txt"], Service(AWAY, AWAY)) == 0
    said = capsys.readouterr().out
    assert "NOT CHECKED" in said and "no such host" in said and "no known" not in said


def test_a_service_that_knows_no_package_has_checked_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main(["ci.txt"], Service([skipped("a"), skipped("b")], AWAY)) == 0
    assert "NOT CHECKED FOR KNOWN VULNERABILITIES (2): a, b" in capsys.readouterr().out


def test_the_next_service_is_asked_for_what_the_first_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    service = Service([skipped("a"), package("b", FIXED)], [package("a", OPEN), package("b", {**FIXED, "id": "GHSA"})])
    service.answers[1][1]["vulns"][0]["aliases"] = ["PYSEC-1"]  # type: ignore[index]
    assert audit.main(["ci.txt"], service) == 1
    said = capsys.readouterr().out
    assert said.count("VULNERABLE") == 1 and "PYSEC-2" in said and "NOT CHECKED" not in said


def test_a_fault_is_found_though_a_service_is_away() -> None:
    assert audit.main(["ci.txt"], Service(AWAY, [package("a", FIXED)])) == 1


@pytest.mark.parametrize("failure", [(2, "unrecognized arguments: --format"), (1, "No module named pip_audit")])
def test_what_is_no_fault_of_the_network_fails(failure: tuple[int, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main(["ci.txt"], Service(failure)) == 1
    assert failure[1] in capsys.readouterr().err


def test_a_fault_that_does_no_harm_here_is_passed_over_with_a_reason() -> None:
    allowed = {"CVE-1": "never called"}
    assert audit.audit(["ci.txt"], allowed, Service([package("a", FIXED)])).fixable == []


def test_no_fault_is_passed_over_without_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "ignored.txt"
    path.write_text("# ids\nCVE-1 never called here\n")
    assert audit.ignored(path) == {"CVE-1": "never called here"}
    path.write_text("CVE-1\n")
    with pytest.raises(audit.Broken, match="CVE-1 has no reason"):
        audit.ignored(path)
    audit.ignored()
