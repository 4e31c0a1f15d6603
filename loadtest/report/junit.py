"""A run as JUnit XML: one test case per threshold, per invariant and for the load tester itself."""

import xml.etree.ElementTree as ET  # only written here, never parsed

from loadtest.report import texts
from loadtest.report.summary import Summary


def case(suite: ET.Element, kind: str, name: str) -> ET.Element:
    """One test case."""
    return ET.SubElement(suite, "testcase", classname=f"{suite.get('name')}.{kind}", name=name)


def clean(text: str) -> str:
    """`text` without what XML 1.0 cannot hold."""
    return "".join(c if c >= " " or c in "\t\n" else "�" for c in text)


def add_checks(suite: ET.Element, summary: Summary) -> None:
    """The thresholds. Those of a run that was measured badly are skipped."""
    for check in summary.checks:
        told = case(suite, "threshold", f"{check.name} {check.wanted}")
        if summary.verdict == "invalid":
            ET.SubElement(told, "skipped", message="the run is invalid")
        elif not check.ok:
            found = f"{texts.got(check).en}, wanted {texts.wanted(check).en}"
            ET.SubElement(told, "failure", message=f"{check.name}: {found}")


def add_invariants(suite: ET.Element, summary: Summary) -> None:
    """The audit, with the offending claims as the text of the failure."""
    for name, promise in texts.INVARIANTS.items():
        told = case(suite, "audit", f"{name} {promise.en}")
        found = [one for one in summary.audit.findings if one.invariant == name]
        if found:
            message = "; ".join(f"{one.name}: {one.en} ({one.count})" for one in found)
            failure = ET.SubElement(told, "failure", message=clean(message))
            claims = [claim for one in found for claim in one.claims]
            failure.text = clean("\n".join(f"{claim.claim_id} {claim.user}" for claim in claims))
        elif name not in summary.audit.checked:
            ET.SubElement(told, "skipped", message="not checked")


def add_honesty(suite: ET.Element, summary: Summary) -> None:
    """Whether the load tester kept up."""
    told = case(suite, "honesty", "the load tester kept up")
    if summary.honesty.reasons:
        why = "; ".join(texts.reason(name, summary).en for name in summary.honesty.reasons)
        ET.SubElement(told, "error", message=clean(why))


def document(summary: Summary) -> bytes:
    """The XML of one run, as CI servers read it."""
    seconds = str(summary.scenario.get("seconds", 0))
    root = ET.Element("testsuites")
    suite = ET.SubElement(root, "testsuite", name=f"loadtest.{clean(summary.name)}", time=seconds)
    suite.set("timestamp", summary.started_at)
    add_checks(suite, summary)
    add_invariants(suite, summary)
    add_honesty(suite, summary)
    suite.set("tests", str(len(suite)))
    counted = (("failures", "failure"), ("errors", "error"), ("skipped", "skipped"))
    for name, tag in counted:
        suite.set(name, str(len(suite.findall(f"testcase/{tag}"))))
    text = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'.encode()
