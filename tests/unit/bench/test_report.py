"""The HTML report: its structure, that names are harmless, and that it says what it does not know."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from helpers.benchmarks import BASELINES, ENVIRONMENT, EVIL, PAIR, Entry, made_up, swept
from helpers.browser import Browser, Visit, lacking
from helpers.support import command, run, save_checkpoint, small_spec
from s2mlp_bench.benchmark import Devices, Plan, Result
from s2mlp_bench.energy import device_table
from s2mlp_bench.energy.energy import Energy
from s2mlp_bench.report import findings, html
from s2mlp_bench.report.pictures import inline_svg
from s2mlp_bench.report.section import Section
from s2mlp_deploy.errors import RuntimeMissingError
from s2mlp_deploy.runtime.session import Times
from s2mlp_deploy.system.dependencies import pip_install

COMMAND = "s2mlp-bench 'a b/fp32' int8 --html report.html"
JOULES = Energy("a board", "all of it", "counter", None, 3.0, 100, 0.0031, 0.0011, 9.5, 6.1)
VOID = ("meta", "link", "img", "br", "path", "use")


@dataclass
class Page(HTMLParser):
    """What a browser would read: elements with their attributes, and the text of each."""

    source: str
    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    texts: dict[str, list[str]] = field(default_factory=dict)
    inside: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in VOID:
            self.inside.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.inside.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if self.inside and data.strip():
            self.texts.setdefault(self.inside[-1], []).append(data.strip())

    def named(self, *tags: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.elements if tag in tags]

    @property
    def words(self) -> str:
        """All that is read, in one line."""
        told = [text for tag, texts in self.texts.items() if tag != "style" for text in texts]
        return " ".join(" ".join(told).split())


def rendered(benchmark: tuple[Plan, Result], **options: Any) -> Page:
    plan, result = benchmark
    return Page(html.render(plan, result, ENVIRONMENT, command=COMMAND, **options))


@pytest.fixture(scope="module")
def usual() -> Page:
    return rendered(made_up(noise=("fp32: the middle half of its times spreads over 12% of the median",)))


# Structure


def test_the_page_says_its_language_its_title_and_its_headings_in_order(usual: Page) -> None:
    assert usual.source.startswith("<!doctype html>") and usual.inside == []
    assert usual.named("html") == [{"lang": "en"}] and usual.texts["title"] == usual.texts["h1"]
    assert usual.texts["title"] == ["How fast fp32 and int8 are"]
    levels = [int(tag[1]) for tag, _ in usual.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert any(a.get("name") == "viewport" for a in usual.named("meta"))


def test_pictures_have_words_and_tables_have_headers(usual: Page) -> None:
    drawn = usual.named("svg")
    assert len(drawn) == 6 and all(a["role"] == "img" and len(a["aria-label"]) > 20 for a in drawn)
    assert "int8 2.5" in drawn[0]["aria-label"]
    assert all(a.get("scope") in ("col", "row") for a in usual.named("th")) and usual.named("caption")
    assert all(a["tabindex"] == "0" and a["aria-label"] for a in usual.named("div") if a.get("class") == "scroll")


def test_nothing_is_asked_for_from_elsewhere(usual: Page) -> None:
    assert not usual.named("script", "img", "iframe", "object") and "@import" not in usual.source
    assert [a["href"] for a in usual.named("link", "a")] == ["data:,"]
    assert not re.search(r"https?:|url\((?!#)", usual.source)
    (policy,) = [a["content"] for a in usual.named("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")


def test_names_inside_pictures_do_not_clash_and_are_all_there(usual: Page) -> None:
    ids = [a["id"] for _, a in usual.elements if "id" in a]
    assert len(set(ids)) == len(ids)
    used = {a["href"][1:] for a in usual.named("use")}
    used |= {name for _, a in usual.elements for name in re.findall(r"url\(#([^)]*)\)", " ".join(a.values()))}
    used |= {a["aria-labelledby"] for _, a in usual.elements if "aria-labelledby" in a}
    assert len(used) > 20 and used <= set(ids)


def test_pictures_take_their_colours_from_the_page_in_light_and_dark(usual: Page) -> None:
    light, dark = (
        set(re.findall(r"(--[\w-]+):", block)) for block in re.findall(r":root \{(.*?)\}", usual.source, re.S)
    )
    assert light == dark >= {f"--{name}" for name in inline_svg.VARIABLES.values()}
    styles = [re.sub(r"var\(--[\w-]+, #\w+\)", "", a.get("style", "")) for _, a in usual.elements]
    assert not any(re.search(r"#[0-9a-fA-F]{3}|rgb|font-family", style) for style in styles)
    assert len(usual.named("style")) == 1 and {a["viewbox"].split()[2] for a in usual.named("svg")} == {"358"}


def test_the_same_benchmark_gives_the_same_page() -> None:
    assert rendered(made_up()).source == rendered(made_up()).source


def test_a_page_with_many_candidates_stays_small() -> None:
    assert len(rendered(made_up(swept((*PAIR, *BASELINES), (1, 2, 4)))).source) < 300_000


# Names


def test_names_of_bundles_are_text_and_nothing_else() -> None:
    evil = [Entry(EVIL, 10.0, accuracy=0.9), Entry('"><script>alert(2)</script>', 5.0, accuracy=0.8), *BASELINES]
    page = rendered(made_up(evil, noise=(f"{EVIL}: spread",)), extras=[Section(EVIL, (EVIL,), [(EVIL,)], [EVIL])])
    assert not page.named("img", "script") and page.inside == []
    assert page.texts["title"] == page.texts["h1"] and EVIL in page.texts["h1"][0]
    assert any(EVIL in text for text in page.texts["text"]), "in pictures, too"
    assert any(EVIL in a["aria-label"] for a in page.named("svg")) and page.texts["td"] and EVIL in page.texts["th"]


def test_characters_that_no_page_may_contain_are_replaced() -> None:
    page = rendered(made_up([Entry("a\x00b\udcff\u202e\nc", 10.0)]))
    assert "a�b���c" in page.words
    assert page.source.encode("utf-8") and not re.search("[\x00\u202e]", page.source)


# What it says


def test_a_quiet_and_complete_benchmark_says_that_the_machine_held_still() -> None:
    page = rendered(made_up())
    assert "The machine held still while it was measured." in page.texts["p"]
    assert "NOISY" not in page.words and "INCOMPLETE" not in page.words


def test_a_noisy_benchmark_says_so_with_all_reasons(usual: Page) -> None:
    assert any(text.startswith("NOISY") for text in usual.texts["p"])
    assert any("12% of the median" in text for text in usual.texts["li"]) and not usual.named("details")
    many = rendered(made_up(noise=[f"reason {i}" for i in range(9)]))
    assert [text for text in many.texts["li"] if "reason" in text] == [f"reason {i}" for i in range(9)]
    assert many.texts["summary"] == ["5 more"]


def test_an_interrupted_benchmark_says_so() -> None:
    page = rendered(made_up(complete=False, bound=False))
    assert any(text.startswith("INCOMPLETE") for text in page.texts["p"])
    assert not {"Roofline", "Where the time goes"} & set(page.texts["h2"])


def test_the_fastest_is_one_that_computes_the_same() -> None:
    plan, result = made_up((*PAIR, Entry("no-shift", 1.0, "baseline", remark="another network")))
    first = findings.findings(result.summary)[0]
    assert re.fullmatch(
        r"Fastest of those that compute the same: int8, 2\.\d\d times \(95% interval .* to .*\) as fast as fp32\.",
        first,
    )
    page = rendered((plan, result))
    assert "Not to be compared with the others" in page.texts["h3"]
    assert any("another network" in text for text in page.texts["li"])


def test_what_shows_no_difference_is_not_called_faster() -> None:
    _, result = made_up((Entry("a", 10.0), Entry("b", 10.0), Entry("c", 20.0)))
    same = replace(result.summary.figures[1].speed, median=1.01, low=0.99, high=1.03)
    figures = (result.summary.figures[0], replace(result.summary.figures[1], speed=same), result.summary.figures[2])
    nothing, equal, slower = findings.findings(replace(result.summary, figures=figures))
    assert nothing.startswith("Nothing that computes the same is shown to be faster than a")
    assert equal == "No difference from a shown: b (1.01×, 0.99 to 1.03)." and slower.startswith(
        "Slower than a: c (0.5"
    )


def test_one_candidate_has_nothing_to_be_compared_with() -> None:
    page = rendered(made_up(PAIR[:1]))
    assert page.texts["h1"] == ["How fast fp32 is"] and "Ratios" not in page.texts["h3"]
    assert any("Nothing else here computes the same" in text for text in page.texts["p"])


def test_what_is_not_known_is_called_unknown_and_what_does_not_apply_is_empty() -> None:
    unknown = replace(PAIR[1], accuracy=None)
    page = rendered(made_up((PAIR[0], unknown, *BASELINES[:1])))
    rows = re.findall(r'<tr><th scope="row">(\S+)</th>(.*?)</tr>', page.source)
    accuracy = {name: re.findall(r"<td[^>]*>[^<]*</td>", cells)[-1] for name, cells in rows[:3]}
    assert accuracy == {
        "fp32": "<td>89.6%</td>",
        "int8": '<td class="unknown">unknown</td>',
        "torch-eager": "<td></td>",
    }
    assert '<dt>load average</dt><dd class="unknown">unknown</dd>' in page.source
    assert '<dt>governor</dt><dd class="unknown">unknown</dd>' in page.source


def test_what_was_not_measured_has_no_section() -> None:
    page = rendered(made_up(PAIR[:1], bound=False, cold=False))
    assert page.texts["h2"] == ["In short", "Speed", "Machine", "How it was measured"]
    assert "products" not in page.texts["th"] and "accuracy" in page.texts["th"]


def test_times_by_the_devices_own_clock_are_shown() -> None:
    plan, result = made_up(PAIR)
    timed = replace(result.summary.figures[0], on_device=Times(0.125, 2.5, 0.0625))
    summary = replace(result.summary, figures=(timed, *result.summary.figures[1:]))
    page = rendered((plan, replace(result, summary=summary)))
    assert "Milliseconds a batch, by the device's own clock" in page.texts["caption"]
    assert {"0.125", "2.50", "0.0625"} <= set(page.texts["td"])


def test_it_can_be_repeated(usual: Page) -> None:
    assert usual.texts["code"] == [COMMAND]
    options = dict(zip(usual.texts["dt"], usual.texts["dd"], strict=True))
    assert options["bundles"] == "some where/fp32, some where/int8" and options["seed of the orders"] == "7"
    assert options["measured for at least"] == "2 s and 30 rounds" and options["threads"] == "the runtime's own choice"
    assert (
        options["energy"] == "not measured: no sensor or counter for it here" and options["cold starts"] == "measured"
    )
    assert options["versions"] == "onnxruntime 1.32.0, numpy 2.4.6" and options["processor"] == "Some CPU <&>"


def test_energy_is_called_measured_only_where_joules_were() -> None:
    plan, result = made_up(PAIR, cold=False, bound=False)
    silent = replace(result, devices=Devices((), {"fp32": None, "int8": None}, ()))
    told = replace(result, devices=Devices((), {"fp32": None, "int8": JOULES}, ()))
    said = [
        dict(zip(page.texts["dt"], page.texts["dd"], strict=True))
        for page in (
            rendered((plan, silent)),
            rendered((plan, told)),
            rendered((replace(plan, energy=False), result)),
        )
    ]
    assert [one["energy"] for one in said] == ["not measured: no sensor or counter for it here", "measured", "left out"]
    assert said[0]["cold starts"] == said[0]["matrix products alone"] == "left out"
    assert device_table.sections(result.summary, silent.devices.energies) == []


def test_threads_are_a_column_of_headers_and_what_names_share_is_said_once() -> None:
    prefixed = [replace(e, source=f"fashion_mnist-onnx-{e.source}") for e in PAIR]
    page = rendered(made_up(swept(prefixed, (1, 2))))
    rows = re.findall(r'<tr><th scope="row">([^<]*)</th><th scope="row">([^<]*)</th><td', page.source)
    assert rows[:4] == [("fp32", "1"), ("fp32", "2"), ("int8", "1"), ("int8", "2")]
    assert 'Names leave out what all bundles\' names begin with, "fashion_mnist-onnx-".' in page.words
    assert page.texts["title"] == ["How fast fashion_mnist-onnx-fp32 and fashion_mnist-onnx-int8 are"]


def test_further_sections_are_tables_with_notes() -> None:
    section = Section("Energy", ("", "mJ an image"), [("fp32", "3.1"), ("int8", None)], ["All that the device took."])
    page = rendered(made_up(), extras=[section])
    assert "Energy" in page.texts["h2"] and "mJ an image" in page.texts["th"] and "3.1" in page.texts["td"]
    assert "All that the device took." in page.texts["p"]
    with pytest.raises(ValueError, match="Energy: 1 cells under 2 headings"):
        Section("Energy", ("", "mJ an image"), [("fp32",)])


@pytest.mark.parametrize("module", ["jinja2", "matplotlib.figure"])
def test_what_is_missing_is_named_with_what_to_install(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RuntimeMissingError, match=re.escape(pip_install("bench"))):
        html.check()


def test_the_command_writes_both_files(tmp_path: Path) -> None:
    name = "fp32 <b>&amp;"
    checkpoint = save_checkpoint(tmp_path / "small.pt", small_spec())
    assert run("export", checkpoint, "-o", tmp_path / name).code == 0
    files = ("--html", tmp_path / "r.html", "--png", tmp_path / "r.png")
    quick = ("--min-seconds", 0, "--min-rounds", 8, "--baseline", "no-shift")
    ran = command("s2mlp-bench", "s2mlp_bench.cli", "main", tmp_path / name, *quick, *files)
    assert ran.code == 0, ran.err
    page = Page((tmp_path / "r.html").read_text("utf-8"))
    assert page.texts["h1"] == [f"How fast {name} is"] and not page.named("b")
    assert {"Roofline", "Where the time goes", "Starts and copies"} <= set(page.texts["h2"])
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


# In a browser

needs_chromium = pytest.mark.skipif(lacking() is not None, reason=lacking() or "")
WIDTHS = {"phone": {"width": 390, "height": 844}, "desk": {"width": 1280, "height": 900}}

MEASURE = """() => {
    const light = (colour) => {
        const [r, g, b] = colour.match(/[\\d.]+/g).map((part) => part / 255)
            .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const paper = light(getComputedStyle(document.documentElement).backgroundColor);
    return [...document.querySelectorAll("svg.picture")].flatMap((svg) => {
        const frame = svg.getBoundingClientRect();
        return [...svg.querySelectorAll("text")].map((text) => {
            const style = getComputedStyle(text), box = text.getBoundingClientRect(), ink = light(style.fill);
            return {
                words: text.textContent,
                size: parseFloat(style.fontSize) * frame.width / svg.viewBox.baseVal.width,
                inside: box.left >= frame.left - 1 && box.right <= frame.right + 1 && box.top >= frame.top - 1
                    && box.bottom <= frame.bottom + 1,
                contrast: (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05),
            };
        });
    });
}"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with everything in it, and names that are long, and that would run as code."""
    entries = [replace(PAIR[0], source=EVIL), replace(PAIR[1], source="a-long-name-" * 8), *PAIR, *BASELINES]
    section = Section("Energy", ("", *(f"a long heading {i}" for i in range(12))), [("fp32", *["123.4"] * 12)])
    plan, result = made_up(swept(entries, (1, 2)), noise=[f"{EVIL}: reason {i}" for i in range(6)])
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(html.render(plan, result, ENVIRONMENT, command=COMMAND + " --x" * 80, extras=[section]), "utf-8")
    return path


@pytest.fixture(params=[(width, scheme) for width in WIDTHS for scheme in ("light", "dark")], ids=" ".join)
def visit(request: pytest.FixtureRequest, browser: Browser, report: Path) -> Iterator[tuple[str, Visit]]:
    """The report, opened from its file."""
    width, scheme = request.param
    seen = browser.blank(viewport=WIDTHS[width], color_scheme=scheme)
    seen.page.goto(report.as_uri())
    return width, seen


@needs_chromium
def test_the_page_asks_for_nothing_complains_of_nothing_and_does_not_scroll_sideways(
    visit: tuple[str, Visit], report: Path
) -> None:
    _, seen = visit
    assert seen.errors == [] and [r for r in seen.requests if not r.startswith("data:")] == [report.as_uri()]
    assert seen.overflow() == 0
    assert seen.page.evaluate("document.querySelectorAll('svg.picture').length") == 6


@needs_chromium
def test_text_in_pictures_is_large_dark_and_whole_enough_to_be_read(visit: tuple[str, Visit]) -> None:
    _, seen = visit
    written = seen.page.evaluate(MEASURE)
    assert len(written) > 100
    assert [text for text in written if text["size"] < 10.5 or text["size"] > 18] == []
    assert [text for text in written if not text["inside"]] == []
    assert [text for text in written if text["contrast"] < 4.5] == []


@needs_chromium
def test_a_row_keeps_its_name_and_its_threads_in_sight_however_far_a_table_is_scrolled(
    visit: tuple[str, Visit],
) -> None:
    width, seen = visit
    hidden = seen.page.evaluate(
        """() => [...document.querySelectorAll(".scroll")].filter((frame) => frame.scrollWidth > frame.clientWidth)
            .flatMap((frame) => {
                frame.scrollLeft = frame.scrollWidth;
                const inside = frame.getBoundingClientRect();
                return [...frame.querySelectorAll(".keys-2 tbody tr")].map((row) => {
                    const [name, threads, , last] = [0, 1, 2, row.cells.length - 1].map((i) => row.cells[i].getBoundingClientRect());
                    return name.left >= inside.left - 1 && threads.left >= name.right - 1 && last.left >= threads.right - 1
                        && last.right <= inside.right + 1;
                });
            }).filter((whole) => !whole).length"""
    )
    assert hidden == 0 or width == "desk"


@needs_chromium
def test_wide_tables_scroll_inside_their_own_frame(visit: tuple[str, Visit]) -> None:
    width, seen = visit
    wide = seen.page.evaluate(
        "[...document.querySelectorAll('.scroll')].filter((frame) => frame.scrollWidth > frame.clientWidth).length"
    )
    assert wide >= (3 if width == "phone" else 1)
