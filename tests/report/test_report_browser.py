"""The report in a real browser: nothing loaded, nothing failing, nothing out of its frame."""

import importlib.util
import time

import pytest
from support.browser import Browser, find
from support.report_studies import EVIL, mixed, simulated, troubled
from support.troubled_study import make, play

from hyperzero_torch.report import write_report

pytestmark = [
    pytest.mark.skipif(find() is None, reason="no Chromium is installed (apt: chromium)"),
    pytest.mark.skipif(
        importlib.util.find_spec("plotly") is None, reason="plotly is not installed"
    ),
    # All arms of these studies have as many users, whatever their shares.
    pytest.mark.filterwarnings("ignore:.*ample ratio mismatch"),
]

OVERFLOW = """Array.from(document.querySelectorAll('body *')).filter(e=>{
  let box=e.getBoundingClientRect();
  return box.right>innerWidth+1&&!e.closest('.scroll,.pan,.skip')&&box.width>0
}).map(e=>e.tagName+'.'+e.className).join()"""
MISFITS = """Array.from(document.querySelectorAll('.plot')).filter(p=>Math.abs(
  p.clientWidth-p.querySelector('.main-svg').getBoundingClientRect().width)>2).map(p=>p.id).join()"""
GROUND = "getComputedStyle(document.body).backgroundColor"
INK = "getComputedStyle(document.querySelector('.main-svg text')).fill"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def quiet(request):
    """Whatever a test does, the page has no error and asks nobody for anything."""
    page = request.getfixturevalue("browser")
    page.errors.clear()
    page.requests.clear()
    yield
    assert page.errors == []
    assert [url for url in page.requests if not url.startswith("file:///")] == []
    assert {url.rsplit("/", 1)[-1] for url in page.requests} <= {"report.html"}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Three studies: one of every kind of trouble, one of names that attack, one simulated."""
    by_name = {}
    for name in ("troubled", "mixed", "simulated"):
        folder = tmp_path_factory.mktemp(name)
        by_name[name] = folder / "report.html"
        if name == "simulated":
            tuner, records, oracle, world = simulated()
            write_report(tuner, by_name[name], records=records, oracle=oracle, world=world)
        else:
            write_report(troubled() if name == "troubled" else mixed(), by_name[name])
    return by_name


@pytest.mark.parametrize(
    ("name", "width", "dark"),
    [
        ("troubled", 390, True),
        ("troubled", 1280, False),
        ("mixed", 320, False),
        ("mixed", 1280, True),
        ("simulated", 390, False),
        ("simulated", 768, True),
    ],
)
def test_it_opens_without_error_and_fits(browser, pages, name, width, dark):
    browser.show(pages[name], width, dark=dark)
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value(OVERFLOW) == ""
    assert browser.value(MISFITS) == ""
    assert browser.value(GROUND) == ("rgb(16, 18, 21)" if dark else "rgb(245, 246, 248)")
    assert browser.value(INK) == ("rgb(162, 169, 180)" if dark else "rgb(93, 100, 112)")
    browser.value("document.querySelectorAll('details').forEach(d=>d.open=true)")
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value(OVERFLOW) == ""
    assert len(browser.requests) == 1


def test_on_a_phone_the_answer_comes_first_and_the_rest_is_folded(browser, pages):
    browser.show(pages["troubled"], 390)
    assert browser.value("document.documentElement.scrollHeight") < 8000
    first = "document.querySelector('.verdict').getBoundingClientRect()"
    assert browser.value(f"{first}.top+scrollY") < 900
    folded = (
        "Array.from(document.querySelectorAll('.fold')).map(f=>f.getAttribute('aria-expanded'))"
    )
    states = browser.value(folded)
    assert states == ["true"] + ["false"] * (len(states) - 1)
    browser.value("document.querySelectorAll('.fold')[2].click()")
    assert browser.value(f"({folded})[2]") == "true"
    browser.until(f"({MISFITS})===''")
    browser.value("location.hash='turns'")
    browser.until("!document.getElementById('turns-blocks').hidden")
    browser.show(pages["troubled"], 1280)
    assert set(browser.value(folded)) == {"true"}


def test_a_narrower_window_takes_the_plots_along(browser, pages):
    browser.show(pages["troubled"], 1280)
    browser.resize(390)
    browser.until(f"({MISFITS})===''")
    assert browser.value("document.documentElement.scrollWidth") <= 390


def test_names_are_shown_as_written_and_run_nothing(browser, pages):
    browser.show(pages["mixed"], 1280)
    assert browser.value("document.querySelectorAll('main img,main svg [onload]').length") == 0
    assert browser.value("document.querySelectorAll('[onerror],[onclick],[onload]').length") == 0
    assert browser.value("document.querySelector('h1').textContent") == EVIL
    drawn = browser.value(
        "Array.from(document.querySelectorAll('.main-svg text')).map(t=>t.textContent).join('|')"
    )
    assert EVIL[:12] in drawn
    assert "%{x}" in drawn
    browser.show(pages["troubled"], 1280)
    drawn = browser.value(
        "Array.from(document.querySelectorAll('.main-svg text')).map(t=>t.textContent).join('|')"
    )
    for name in ("w_share <i>", "fresh & new", "<mixed>"):
        assert name in drawn


def test_the_theme_is_chosen_by_a_button_and_remembered(browser, pages):
    browser.show(pages["mixed"], 800)
    light = browser.value(GROUND)
    browser.value("document.getElementById('theme').click()")
    assert browser.value("document.getElementById('theme').textContent") == "Theme: dark"
    assert browser.value(GROUND) == "rgb(16, 18, 21)" != light
    browser.until(f"{INK}==='rgb(162, 169, 180)'")
    for _ in range(10):  # Chromium stores the choice while the page that made it goes on
        browser.show(pages["mixed"], 800)
        if browser.value(GROUND) == "rgb(16, 18, 21)":
            break
    assert browser.value(GROUND) == "rgb(16, 18, 21)"
    browser.value("document.getElementById('theme').click()")
    assert browser.value(GROUND) == light
    browser.value("document.getElementById('theme').click()")
    assert browser.value("document.getElementById('theme').textContent") == "Theme: automatic"


def test_less_motion_where_the_reader_asks_for_it(browser, pages):
    smooth = "getComputedStyle(document.documentElement).scrollBehavior"
    browser.show(pages["mixed"], 800)
    assert browser.value(smooth) == "smooth"
    browser.show(pages["mixed"], 800, reduced=True)
    assert browser.value(smooth) == "auto"


def test_printed_it_is_light_and_whole(browser, pages):
    browser.show(pages["troubled"], 800, dark=True)
    browser.value("dispatchEvent(new Event('beforeprint'))")
    assert browser.value(GROUND) == "rgb(245, 246, 248)"
    browser.until(f"{INK}==='rgb(93, 100, 112)'")
    browser.value("dispatchEvent(new Event('afterprint'))")
    assert browser.value(GROUND) == "rgb(16, 18, 21)"
    browser.until(f"{INK}==='rgb(162, 169, 180)'")
    printed = browser.call("Page.printToPDF", printBackground=False)
    assert len(printed["data"]) > 50_000


def test_a_watched_file_reloads_keeps_its_place_and_can_be_paused(browser, tmp_path):
    path = tmp_path / "report.html"
    tuner = make()
    play(tuner, 6)
    write_report(tuner, path, reload_every=4)
    browser.show(path, 800)
    browser.value("document.querySelectorAll('details')[2].open=true")
    browser.value("scrollTo({top:600,behavior:'instant'})")
    subtitle = "document.querySelector('header>p').textContent"
    assert "Round 5 " in browser.value(subtitle)
    play(tuner, 1)
    write_report(tuner, path, reload_every=4)
    browser.until(f"document.readyState==='complete'&&({subtitle}).includes('Round 6 ')")
    # The page may just be loading once more: every four seconds it does.
    browser.until("document.querySelectorAll('details')[2]?.open")
    assert abs(browser.value("scrollY") - 600) < 60
    browser.until("document.getElementById('pause')!==null")
    browser.value("document.getElementById('pause').click()")
    assert browser.value("document.getElementById('pause').getAttribute('aria-pressed')") == "true"
    browser.value("window.stays=true")
    time.sleep(4.6)
    assert browser.value("window.stays===true")
    browser.value("document.getElementById('pause').click()")
    browser.until("window.stays!==true")
