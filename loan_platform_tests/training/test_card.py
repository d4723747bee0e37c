from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from loan_platform.contract.settings import Fairness, PolicySettings
from loan_platform.evaluation.sections import SECTIONS
from loan_platform.evaluation.sections.origin import environment_hash
from loan_platform.evaluation.sections.quality import METRICS
from loan_platform.model.bundle import Bundle
from loan_platform.model.calibrator import Isotonic
from loan_platform.training.card import Card
from loan_platform.training.evaluate import Evaluation
from loan_platform.training.pictures import draw

PNG = b"\x89PNG made up"


class Page(HTMLParser):
    """The text of a page, its tags, and what it would load."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.loads: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "title"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def card(judged: tuple[Bundle, Evaluation], version: str | None = "3") -> Page:
    return Page(Card.of(*judged, version=version).page({"roc.png": PNG}))


def test_a_card_stands_by_itself(judged: tuple[Bundle, Evaluation]) -> None:
    html = Card.of(*judged, version="3").page(draw(*judged))
    page = Page(html)
    assert page.open == []
    loads = [source for source in page.loads if not source.startswith("#")]
    assert len(loads) == 8  # the pictures
    assert all(source.startswith("data:image/png;base64,") for source in loads)
    assert not {"script", "link", "iframe", "object", "form"} & set(page.tags)
    assert "url(" not in html
    assert "@import" not in html
    assert 'name="viewport"' in html
    assert len(html) < 600_000


def test_a_card_says_what_a_reviewer_asks(judged: tuple[Bundle, Evaluation]) -> None:
    bundle, evaluation = judged
    record = dataclasses.replace(
        bundle,
        record=bundle.record.model_copy(
            update={
                "out_of_time": {"auc": 0.6123, "auc_low": 0.5, "auc_high": 0.7},
                "notes": ["split by time, says the plan"],
                "ingredients": [
                    {"family": "lightgbm", "parameters": {}, "size": 20, "weight": 0.75},
                    {"family": "logistic", "parameters": {}, "size": 1, "weight": 0.25},
                ],
                "parameters": {"1.learning_rate": 0.05, "1.size": 20, "2.penalty": 3},
            }
        ),
    )
    text = card((record, evaluation)).text
    m = evaluation.metrics
    for name, (title, _) in METRICS.items():
        assert (title in text) == (name in m), name
    assert f"{m['auc']:.4f} {m['auc_low']:.4f} to {m['auc_high']:.4f}" in text
    assert "0.6123 0.5000 to 0.7000" in text
    assert "credit_risk, version 3" in text
    assert "split by time, says the plan." in text
    assert "lightgbm 0.75 20 learning_rate 0.05" in text
    assert "logistic 0.25 1 penalty 3" in text
    for one in (*evaluation.by_month, *evaluation.by_segment["loan_intent"]):
        assert f"{one.name} {one.rows:,} {one.bad_rate:.1%}" in text
    for group in evaluation.fairness[0].groups:
        few = "" if group.judged else "(few) "
        assert f"{group.name} {few}{group.rows:,} {group.approval_rate:.1%}" in text
    for name, reason in bundle.contract.ignored_columns.items():
        assert name in text
        assert reason in text
    for name in (*bundle.contract.model_inputs, *bundle.record.environment):
        assert name in text
    hashes = (bundle.record.data_hash, bundle.record.contract_hash, bundle.policy.policy_hash)
    assert all(each in text for each in (*hashes, environment_hash(bundle.record)))
    assert "Of applications that were declined nobody knows it" in text


def test_what_was_accepted_stands_on_top(judged: tuple[Bundle, Evaluation]) -> None:
    bundle, evaluation = judged
    columns = [
        column.model_copy(update={"leak_accepted": "nobody knows better"})
        if column.name == "loan_amnt"
        else column
        for column in bundle.contract.columns
    ]
    fairness = Fairness(accepted={"person_age": "the young have no history"})
    contract = bundle.contract.model_copy(update={"columns": columns, "fairness": fairness})
    text = card((dataclasses.replace(bundle, contract=contract), evaluation)).text
    top = text[: text.index("What it is for")]
    assert "Simulated. This model learnt from a stand-in" in top
    assert "loan_amnt is used although it may leak the outcome: nobody knows better" in top
    assert "person_age is used although it is a protected attribute: Regulation B" in top
    assert "Groups of person_age may lie below the four-fifths line: the young have no" in top
    real = bundle.record.model_copy(update={"simulated": False})
    assert "Simulated" not in card((dataclasses.replace(bundle, record=real), evaluation)).text


def test_whatever_a_contract_says_is_text(judged: tuple[Bundle, Evaluation]) -> None:
    bundle, evaluation = judged
    evil = "<script>alert('x')</script> \"&"
    contract = bundle.contract.model_copy(update={"title": evil, "description": evil})
    group = dataclasses.replace(evaluation.fairness[0].groups[0], name=evil)
    attribute = dataclasses.replace(evaluation.fairness[0], groups=[group])
    page = card(
        (
            dataclasses.replace(bundle, contract=contract),
            dataclasses.replace(evaluation, fairness=[attribute]),
        ),
        version=evil,
    )
    assert "script" not in page.tags
    assert page.text.count(evil) == 4


def test_what_is_not_known_is_left_out(judged: tuple[Bundle, Evaluation]) -> None:
    bundle, evaluation = judged
    assert not bundle.reference
    bare = dataclasses.replace(evaluation, by_month=[], by_segment={}, fairness=[])
    text = card((bundle, bare), version=None).text
    for absent in ("By month", "By segment", "newest months", "None", "nan", "version None"):
        assert absent not in text
    assert "no groups were compared" in text
    assert "the service gives no reasons with it" in text
    usual = dataclasses.replace(
        bundle, reference={"person_income": 61234.5, "person_emp_length": None}
    )
    text = card((usual, evaluation)).text
    assert "person_income 61,234.5 USD a year" in text
    assert "person_emp_length missing" in text


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (PolicySettings(), "was set at the largest difference between the shares of bad and"),
        (PolicySettings(threshold="f1"), "was set at the largest F1 of the flagged, with 10%"),
        (
            PolicySettings(threshold="approval_rate", approval_rate=0.7),
            "was set so that 70% of the applications are approved, with 10%",
        ),
        (
            PolicySettings.model_validate(
                {"bands": {"approve": [0, 0.2], "refer": [0.2, 0.4], "decline": [0.4, 1]}}
            ),
            "was set by hand: the contract says these bands. A loan",
        ),
    ],
)
def test_how_the_threshold_was_set(
    judged: tuple[Bundle, Evaluation], settings: PolicySettings, told: str
) -> None:
    bundle, evaluation = judged
    contract = bundle.contract.model_copy(update={"policy": settings})
    curve = Isotonic(points=[(-1.0, -2.0), (1.0, 1.0)], slope=1.0)
    changed = dataclasses.replace(bundle, contract=contract, calibrator=curve)
    text = card((changed, evaluation)).text
    assert told in text
    assert "isotonic on the log-odds, with 2 points" in text
    assert re.search(r"approve 0\.000 to below 0\.200 \d+\.\d%", text)


def test_the_environment_hash_is_of_every_version(judged: tuple[Bundle, Evaluation]) -> None:
    record = judged[0].record
    other = record.model_copy(update={"environment": {**record.environment, "numpy": "0.1"}})
    assert environment_hash(other) != environment_hash(record)
    assert environment_hash(record.model_copy(update={"seed": 9})) == environment_hash(record)


def test_the_contents_lead_to_every_section(judged: tuple[Bundle, Evaluation]) -> None:
    """A section without an entry is not found on a long page."""
    html = Card.of(*judged).page({})
    links = re.findall(r'<li><a href="#(\w+)">([^<]+)</a>', html)
    headings = re.findall(r'<section id="(\w+)">\s*<h2>([^<]+)</h2>', html)
    assert links == headings
    assert [name for name, _ in links] == [one.name for one in SECTIONS if one.name != "pictures"]


def test_the_figures_of_a_card_make_its_page(judged: tuple[Bundle, Evaluation]) -> None:
    """A machine that reads the figures has to read what a person sees."""
    first = Card.of(*judged, version="3", runs={"MLflow run": "abc"})
    again = Card(**json.loads(first.json))
    assert again == first
    assert again.page({"roc.png": PNG}) == first.page({"roc.png": PNG})


def test_the_docs_list_the_sections_in_their_order() -> None:
    """docs/model_card.md promises what a card holds; readers look there for what is missing."""
    docs = Path(__file__).parents[2] / "docs" / "model_card.md"
    listed = re.findall(r"^- \*\*([^*]+)\*\*", docs.read_text(), flags=re.MULTILINE)
    assert listed == [one.title for one in SECTIONS]
