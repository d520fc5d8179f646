"""The page, as a person uses it: a real server, a real browser, toys for models."""

from __future__ import annotations

import io
import json
import re
import urllib.parse
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from tests.search.corpus import pdf
from tests.server.conftest import serving, toy_app
from tests.server.pages import GREEN, RED, Visit, chromium, index, make_files, picture


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module", autouse=True)
def data(tmp_path_factory):
    """Where the servers of these tests keep what is uploaded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    make_files(folder)
    return folder


@pytest.fixture(scope="module")
def address(tmp_path_factory, folder, data):
    """A server on a library that these tests only read, but for labels."""
    place = tmp_path_factory.mktemp("index") / "library.sightline"
    index(place, folder)
    with serving() as start:
        yield start(toy_app(library=str(place)))


@pytest.fixture
def visit(browser, address):
    """A window on that library; nothing may go wrong in it."""
    visit = Visit(browser, address)
    yield visit
    visit.close()


@pytest.fixture
def open_visit(browser):
    """Windows on other servers."""
    visits = []

    def make(address: str, **options) -> Visit:
        visits.append(Visit(browser, address, **options))
        return visits[-1]

    yield make
    for visit in visits:
        visit.close()


def sent(visit: Visit, act) -> Any:
    """The request of the search that ``act`` starts."""
    with visit.page.expect_response("**/v1/search") as caught:
        act()
    visit.settle()
    return json.loads(caught.value.request.post_data)


# ------------------------------------------------------------------------------------------ what the server sends


def test_page_needs_nothing_from_elsewhere_and_holds_no_inline_code():
    with TestClient(toy_app(), base_url="http://127.0.0.1") as client:
        html = client.get("/").text
        style = client.get("/static/style.css").text
    addresses = re.findall(r'(?:src|href|action)="([^"]*)"', html) + re.findall(r"url\(([^)]*)\)", style)
    assert addresses
    assert all(one.startswith(("/", "#")) for one in addresses)
    assert not re.findall(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=", html)


def test_every_static_file_is_served_with_its_type_and_kept_by_its_tag(client):
    names = set(re.findall(r"/static/([\w.]+)", client.get("/").text))
    assert {"app.js", "style.css", "mark.svg", "icons.svg"} <= names
    for name in names:
        answer = client.get(f"/static/{name}")
        kind = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}[name.rpartition(".")[2]]
        assert (answer.status_code, answer.headers["content-type"].split(";")[0]) == (200, kind)
        again = client.get(f"/static/{name}", headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "name", ["index.html", "login.html", "nothing.js", "%2e%2e%2fpage.py", "..%2fapp.py", "app.js%00"]
)
def test_nothing_else_is_served(client, name):
    assert client.get(f"/static/{name}").status_code in {400, 404}


def test_query_of_the_address_is_escaped_in_the_page(client):
    html = client.get("/", params={"q": '"><script>alert(1)</script>{{7*7}}'}).text
    assert "<script>alert" not in html
    assert "&#34;&gt;&lt;script&gt;alert(1)&lt;/script&gt;{{7*7}}" in html


# ------------------------------------------------------------------------------------------------------ searching


def test_words_find_photos_pages_moments_and_passages_with_the_words_marked(visit):
    page = visit.go()
    visit.search("bicycle")
    assert {"text", "page", "image", "moment"} <= set(visit.kinds)
    assert visit.page.locator("#wall mark").first.text_content().lower() == "bicycle"
    assert re.search(r"\d+ results in ", page.text_content("#count"))
    assert urllib.parse.parse_qs(urllib.parse.urlparse(page.url).query) == {"q": ["bicycle"]}


def test_pasted_picture_alone_and_with_words(visit, tmp_path):
    page = visit.go()
    data = picture(tmp_path / "paste.png", RED).read_bytes()

    def paste():
        page.evaluate(
            """bytes => {
                const transfer = new DataTransfer();
                transfer.items.add(new File([new Uint8Array(bytes)], "paste.png", {type: "image/png"}));
                document.querySelector("#q").dispatchEvent(
                    new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true, cancelable: true}));
            }""",
            list(data),
        )

    request = sent(visit, paste)
    assert request["image"][0].startswith("data:image/png;base64,")
    assert "text" not in request
    assert visit.titles[0] in {"rose", "tomato"}
    assert page.locator("#chips .chip img").evaluate("image => image.naturalWidth") > 0
    page.fill("#q", "bicycle")
    both = sent(visit, lambda: page.press("#q", "Enter"))
    assert (both["text"], both["image"]) == ("bicycle", request["image"])
    page.go_back()
    visit.settle()
    assert page.locator("#chips .chip").count() == 1  # back to the picture alone
    assert page.input_value("#q") == ""
    page.click("#chips .chip-x")
    page.wait_for_selector("body[data-view=home]")


def test_dropped_clip_searches_where_it_is_dropped_to_search(visit, folder):
    page = visit.go()
    data = list((folder / "photos" / "signal.webm").read_bytes())

    def drop():
        page.evaluate(
            """bytes => {
                const transfer = new DataTransfer();
                transfer.items.add(new File([new Uint8Array(bytes)], "clip.webm", {type: "video/webm"}));
                const send = (node, type) => node.dispatchEvent(
                    new DragEvent(type, {dataTransfer: transfer, bubbles: true, cancelable: true}));
                send(document.body, "dragenter");
                const zone = document.querySelector('[data-drop="search"]');
                if (document.querySelector("#drop").hidden) throw new Error("no place to drop");
                send(zone, "dragover");
                send(zone, "drop");
            }""",
            data,
        )

    request = sent(visit, drop)
    assert request["video"][0].startswith("data:video/webm;base64,")
    assert page.is_hidden("#drop")
    assert visit.kinds


def test_file_that_is_no_picture_is_refused_with_a_word(visit, tmp_path):
    page = visit.go()
    (tmp_path / "a.zip").write_bytes(b"PK")
    page.set_input_files("#attach-files", tmp_path / "a.zip")
    visit.until("document.querySelector('#toast').textContent.includes('a.zip')")
    assert page.locator("#chips .chip").count() == 0


def test_minus_word_becomes_a_chip_and_what_is_not_wanted(visit):
    page = visit.go()
    page.fill("#q", 'bicycle -chain -"two words" re-use')
    request = sent(visit, lambda: page.press("#q", "Enter"))
    assert (request["text"], request["unlike"]) == ("bicycle re-use", ["chain", "two words"])
    assert page.locator("#chips .chip.not").count() == 2
    after = sent(visit, page.locator("#chips .chip-x").first.click)
    assert after["unlike"] == ["two words"]


def test_not_this_of_a_result(visit):
    page = visit.go("/?q=bicycle")
    visit.settle()
    first = page.locator("#wall .card").first
    first.hover()
    first.locator(".dots").click()
    assert page.evaluate("document.activeElement.textContent") == "More like this"
    request = sent(visit, lambda: page.get_by_role("menuitem", name="Not this").click())
    assert re.fullmatch("[0-9a-f]{32}", request["unlike"][0]["like"])
    assert "notlike=" in page.url


def test_filters_by_kind_folder_and_date(visit, folder):
    page = visit.go("/?q=bicycle")
    visit.settle()
    sent(visit, lambda: page.click("[data-kind=page]"))
    assert set(visit.kinds) == {"page"}
    assert page.get_attribute(".toggle[data-kind=page]", "aria-pressed") == "true"
    sent(visit, lambda: page.click(".toggle[data-kind=text]"))
    assert set(visit.kinds) == {"page", "text"}
    sent(visit, lambda: page.click("#clear"))
    visit.until("document.querySelector('#under').options.length > 1")
    assert sent(visit, lambda: page.select_option("#under", str(folder)))["where"] == {"path": str(folder)}
    assert visit.kinds
    page.select_option("#when", "own")
    page.wait_for_selector("#before", state="visible")
    visit.settle()
    request = sent(visit, lambda: page.fill("#before", "2001-12-31"))
    assert request["where"]["before"] == "2002-01-01"  # the last day counts
    assert visit.kinds == []
    assert "Nothing here fits" in page.text_content("#notice")
    sent(visit, page.get_by_role("button", name="Clear filters").last.click)
    assert visit.kinds


def test_back_and_forward(visit):
    page = visit.go()
    visit.search("bicycle")
    visit.search("bread")
    sent(visit, lambda: page.click(".toggle[data-kind=text]"))
    page.go_back()
    visit.until("!document.querySelector('.kinds [aria-pressed=true]')")
    assert page.input_value("#q") == "bread"
    sent(visit, page.go_back)
    assert page.input_value("#q") == "bicycle"
    page.go_back()
    page.wait_for_selector("body[data-view=home]")
    assert page.locator("#wall .card").count() == 0
    sent(visit, page.go_forward)
    assert page.title() == "bicycle · Sightline"


def test_moment_plays_in_its_card_without_sound_while_the_pointer_is_on_it(visit):
    page = visit.go("/?q=bicycle&kind=moment")
    visit.settle()
    card = page.locator("#wall .card").first
    card.hover()
    video = card.locator("video")
    video.wait_for()
    assert video.evaluate("video => video.muted")
    assert re.search(r"/media#t=\d", video.get_attribute("src"))
    visit.until("document.querySelector('#wall video').currentTime > 0")
    page.mouse.move(2, 2)
    visit.until("!document.querySelector('#wall video')")


def test_nothing_plays_by_itself_where_less_motion_is_wanted(open_visit, address):
    visit = open_visit(address, reduced_motion="reduce")
    page = visit.go("/?q=bicycle&kind=moment")
    visit.settle()
    page.locator("#wall .card").first.hover()
    page.wait_for_timeout(600)
    assert page.locator("#wall video").count() == 0


def test_why_this_order_shows_both_places_scores_and_the_way(visit):
    page = visit.go("/?q=bicycle")
    visit.settle()
    answer = page.evaluate(
        "fetch('/v1/search', {method: 'POST', headers: {'Content-Type': 'application/json'},"
        " body: JSON.stringify({text: 'bicycle', k: 20})}).then(answer => answer.json())"
    )
    page.click("#why")
    cards = page.locator("#wall .card .why").all_text_contents()
    assert len(cards) == len(answer["hits"])
    for text, hit in zip(cards, answer["hits"], strict=True):
        moved = hit["recall_rank"] - hit["rank"]
        assert f"{hit['recall_score']:.3f}" in text and f"{hit['rerank_score']:.3f}" in text
        assert (f"▲ {moved}" if moved > 0 else f"▼ {-moved}" if moved < 0 else "=") in text
    assert page.locator("#order path").count() == len(answer["hits"])
    assert page.locator("#order ol").first.locator("li b").all_text_contents() == [
        str(rank) for rank in sorted(hit["recall_rank"] for hit in answer["hits"])
    ]
    assert "why=1" in page.url
    page.click("#why")
    assert page.is_hidden("#order")
    assert page.locator("#wall .why:visible").count() == 0


# -------------------------------------------------------------------------------------------------------- preview


def test_preview_with_arrow_keys_and_back_to_the_card(visit):
    page = visit.go("/?q=bicycle")
    visit.settle()
    titles = visit.titles
    page.locator("#wall .open").first.click()
    page.wait_for_selector("#preview[open]")
    assert page.text_content("#preview-title") == titles[0]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    assert page.text_content("#preview-title") == titles[1]
    page.keyboard.press("Escape")
    page.wait_for_selector("#preview", state="hidden")
    visit.until("document.activeElement.closest('.card')?.dataset.index === '1'")
    assert page.url.endswith("/?q=bicycle")


def test_back_button_closes_the_preview_and_leaves_the_results(visit):
    page = visit.go("/?q=bicycle")
    visit.settle()
    page.locator("#wall .open").nth(2).click()
    page.wait_for_selector("#preview[open]")
    page.go_back()
    page.wait_for_selector("#preview", state="hidden")
    assert page.input_value("#q") == "bicycle"
    assert visit.kinds


def test_preview_shows_a_page_with_its_text_and_offers_the_original(visit, folder):
    page = visit.go("/?q=bicycle&kind=page")
    visit.settle()
    page.locator("#wall .card", has=page.locator("mark")).locator(".open").click()
    visit.until("document.querySelector('#stage img:not(.small)')?.naturalWidth > 320")
    visit.until("document.querySelector('#words').textContent.includes('repair a bicycle chain')")
    assert page.locator("#words mark").first.text_content() == "bicycle"
    assert str(folder / "papers" / "manual.pdf") in page.text_content("#facts")
    assert page.get_attribute("#act-open", "href").endswith("/media")


def test_more_like_this(visit):
    page = visit.go("/?q=rose&kind=image")
    visit.settle()
    names = visit.titles
    page.locator("#wall .open").nth(names.index("meadow")).click()
    page.wait_for_selector("#preview[open]")
    request = sent(visit, lambda: page.click("#act-like"))
    assert page.is_hidden("#preview")
    assert "text" not in request
    assert request["like"] in page.url
    assert "Like: meadow" in page.text_content("#chips")
    page.reload()
    visit.until("document.querySelector('#chips').textContent.includes('meadow')")


def test_labels_are_kept(visit, address):
    page = visit.go("/?q=bicycle")
    visit.settle()
    page.locator("#wall .open").first.click()
    page.wait_for_selector("#preview[open]")
    with page.expect_response(lambda answer: answer.url.endswith("/labels")) as caught:
        page.click("#act-up")
    assert caught.value.ok
    assert page.get_attribute("#act-up", "aria-pressed") == "true"
    page.reload()
    visit.settle()
    page.wait_for_selector("#wall .card[data-index='0'] .vote.good")
    page.locator("#wall .open").first.focus()
    with page.expect_response(lambda answer: answer.url.endswith("/labels")):
        page.keyboard.press("b")
    page.wait_for_selector("#wall .card[data-index='0'] .vote.bad")


# ------------------------------------------------------------------------------------------------------- indexing


def test_adding_by_upload_and_by_path_with_progress_and_failures(serve, open_visit, tmp_path):
    visit = open_visit(serve(toy_app(library=str(tmp_path / "library.sightline"))))
    page = visit.go()
    page.wait_for_selector("#notice:not([hidden])")
    assert "This library is empty" in page.text_content("#notice")
    page.get_by_role("button", name="Add files").last.click()
    picture(tmp_path / "cherry.png", RED)
    (tmp_path / "torn.png").write_bytes((tmp_path / "cherry.png").read_bytes()[:40])
    page.set_input_files("#add-files", [tmp_path / "cherry.png", tmp_path / "torn.png"])
    page.wait_for_selector("#jobs li[data-status=done]")
    page.wait_for_selector("#failed li")
    assert "1 indexed, 1 not indexed" in page.text_content("#jobs")
    assert re.search(r"torn\.png.*damaged", page.text_content("#failed"))
    (tmp_path / "more").mkdir()
    picture(tmp_path / "more" / "grass.png", GREEN)
    page.fill("#path", str(tmp_path / "more"))
    page.press("#path", "Enter")
    visit.until("document.querySelectorAll('#jobs li[data-status=done]').length === 2")
    assert page.text_content("#jobs-live") == "1 indexed"
    page.keyboard.press("Escape")
    visit.until("document.querySelector('#stock').textContent === '2 photos'")
    visit.search("grass")
    assert sorted(visit.titles) == ["cherry", "grass"]


def test_refused_path_is_said_in_the_words_of_the_server(serve, open_visit, tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir(), outside.mkdir()
    visit = open_visit(serve(toy_app(library=str(tmp_path / "library.sightline"), serve_roots=str(inside))))
    page = visit.go()
    page.click("#add-open")
    page.fill("#path", str(outside))
    with page.expect_response(lambda answer: answer.request.method == "POST") as caught:
        page.press("#path", "Enter")
    message = caught.value.json()["error"]["message"]
    visit.until("document.querySelector('#adding-said').textContent")
    assert page.text_content("#adding-said").lower().startswith(message.lower())
    assert all("status of 40" in one for one in visit.wrong)  # the browser's own note of the refusal
    visit.wrong.clear()


# --------------------------------------------------------------------------------------------- errors and waiting


def test_error_says_what_the_server_said_and_can_be_tried_again(visit):
    page = visit.go()
    failing = {"error": {"message": "too many requests are waiting; try again in a moment", "code": None}}
    page.route("**/v1/search", lambda route: route.fulfill(status=429, json=failing))
    visit.search("bicycle")
    page.wait_for_selector("#notice[role=alert]")
    assert "Too many requests are waiting; try again in a moment." in page.text_content("#notice")
    page.unroute("**/v1/search")
    sent(visit, lambda: page.get_by_role("button", name="Try again").click())
    assert visit.kinds
    assert page.is_hidden("#notice")
    assert [one for one in visit.wrong if "429" not in one] == []
    visit.wrong.clear()


def test_server_that_has_gone_is_said(visit):
    page = visit.go()
    page.route("**/v1/search", lambda route: route.abort())
    page.fill("#q", "bicycle")
    page.press("#q", "Enter")
    page.wait_for_selector("#notice[role=alert]")
    assert "The server does not answer" in page.text_content("#notice")
    assert [one for one in visit.wrong if "ERR_FAILED" not in one] == []
    visit.wrong.clear()


def test_waiting_is_shown_and_an_older_answer_never_replaces_a_newer(visit):
    page = visit.go()
    held = []
    page.route(
        "**/v1/search", lambda route: held.append(route) if "slow" in route.request.post_data else route.continue_()
    )
    page.fill("#q", "slow")
    page.press("#q", "Enter")
    page.wait_for_selector("#wall[aria-busy=true] .skeleton")
    visit.search("bread")
    titles = visit.titles
    for route in held:
        route.abort()
    page.wait_for_timeout(300)
    assert visit.titles == titles
    assert page.input_value("#q") == "bread"
    assert page.is_hidden("#notice")


def test_five_thousand_results_are_all_there_and_reach_the_last_by_key(visit):
    page = visit.go()
    hit: dict[str, Any] = {"score": 0.5, "recall_score": 0.5, "rerank_score": None, "kind": "text", "path": "/a", "page": None,
           "start_s": None, "end_s": None, "snippet": "words", "matches": [], "thumbnail": None, "preview": None,
           "media": None, "label": 0}  # fmt: skip
    hits = [hit | {"id": f"{n:032x}", "rank": n + 1, "recall_rank": n + 1, "title": f"note {n}"} for n in range(5000)]
    body = {"library": "default", "hits": hits, "took_ms": {"total": 1, "embed": 1, "recall": 0, "rerank": 0}}
    page.route("**/v1/search", lambda route: route.fulfill(json=body))
    visit.go("/?q=words&k=5000")
    visit.until("document.querySelectorAll('#wall .card').length === 5000")
    page.locator("#wall .open").first.focus()
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.closest('.card').dataset.index") == "4999"
    assert page.evaluate("scrollY") > 1000
    assert page.is_hidden("#more")
    # readers hear which of how many it is
    last = page.locator("#wall .card").last
    assert (last.get_attribute("aria-posinset"), last.get_attribute("aria-setsize")) == ("5000", "5000")
    # out of sight, cards are not laid out and load no pictures: that is what keeps scrolling smooth
    unseen = "cards => cards.filter(card => !card.checkVisibility({contentVisibilityAuto: true})).length"
    assert page.eval_on_selector_all("#wall .card", unseen) > 4500
    # what is seen and has the focus stays so in a window of another width, where the rows are others
    top = "document.activeElement.getBoundingClientRect().top"
    before = page.evaluate(top)
    page.set_viewport_size({"width": 900, "height": 860})
    visit.until("document.querySelector('#wall .wall-row').childElementCount === 2")
    assert page.evaluate("document.activeElement.closest('.card').dataset.index") == "4999"
    assert abs(page.evaluate(top) - before) < 100  # the filters above take two lines now
    assert [
        card["index"] for card in page.eval_on_selector_all("#wall .card", "all => all.map(c => ({...c.dataset}))")
    ] == [str(n) for n in range(5000)]


def test_pictures_come_when_their_rows_come_near(visit):
    page = visit.go()
    picture = f"/v1/libraries/default/items/{0:032x}/thumbnail"
    hit: dict[str, Any] = {"score": 0.5, "recall_score": 0.5, "rerank_score": None, "kind": "image", "path": "/a", "page": None,
           "start_s": None, "end_s": None, "snippet": "", "matches": [], "preview": None, "media": None, "label": 0}  # fmt: skip
    hits = [hit | {"id": f"{n:032x}", "rank": n + 1, "recall_rank": n + 1, "title": f"photo {n}",
                   "thumbnail": f"{picture}?{n}"} for n in range(400)]  # fmt: skip
    body = {"library": "default", "hits": hits, "took_ms": {"total": 1, "embed": 1, "recall": 0, "rerank": 0}}
    data = io.BytesIO()
    Image.new("RGB", (64, 48), RED).save(data, "PNG")
    page.route("**/thumbnail*", lambda route: route.fulfill(body=data.getvalue(), content_type="image/png"))
    page.route("**/v1/search", lambda route: route.fulfill(json=body))
    visit.go("/?q=words&k=1000")
    visit.until("document.querySelectorAll('#wall .card').length === 400")
    visit.until("document.querySelector('#wall img').classList.contains('here')")
    last = "[...document.querySelectorAll('#wall img')].at(-1)"
    assert page.evaluate(f"{last}.getAttribute('src')") is None
    visit.until(f"(scrollTo(0, document.body.scrollHeight), {last}.classList.contains('here'))")


def test_back_leads_to_where_the_wall_was_scrolled(visit):
    page = visit.go("/?q=bicycle&k=100")
    visit.settle()
    rows = page.locator("#wall .wall-row").count()
    page.set_viewport_size({"width": 700, "height": 400})
    # scrolled before the rows of the new width are made, the wall would rightly move to keep the card that is seen
    visit.until(f"document.querySelectorAll('#wall .wall-row').length > {rows}")
    page.evaluate("scrollTo(0, 300)")
    assert page.evaluate("scrollY") == 300
    page.locator("#wall .open").nth(3).click()
    page.wait_for_selector("#preview[open]")
    page.go_back()
    page.wait_for_selector("#preview", state="hidden")
    assert abs(page.evaluate("scrollY") - 300) < 210  # no further than it takes to show the card


# --------------------------------------------------------------------------------------- keyboard, phone, readers


def test_keyboard_alone(visit):
    page = visit.go("/?q=bicycle")
    visit.settle()
    page.locator("body").press("/")
    assert page.evaluate("document.activeElement.id") == "q"
    page.keyboard.type("bread", delay=0)
    with page.expect_response("**/v1/search"):
        page.keyboard.press("Enter")
    visit.settle()
    page.keyboard.press("ArrowDown")
    at = "document.activeElement.closest('.card').dataset.index"
    assert page.evaluate(at) == "0"
    page.keyboard.press("ArrowRight")
    assert page.evaluate(at) == "1"
    page.keyboard.press("ArrowDown")
    below = int(page.evaluate(at))
    tops = page.eval_on_selector_all("#wall .card", "cards => cards.map(card => card.getBoundingClientRect().top)")
    assert tops[below] > tops[1]
    page.keyboard.press("ArrowUp")
    assert tops[int(page.evaluate(at))] == tops[1]
    assert page.locator("#wall button[tabindex='0']").count() == 2  # one stop for Tab, and its menu
    page.keyboard.press("Enter")
    page.wait_for_selector("#preview[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("#preview", state="hidden")
    page.keyboard.press("?")
    page.wait_for_selector("#keys[open]")
    page.keyboard.press("Escape")
    page.keyboard.press("w")
    page.wait_for_selector("#order:not([hidden])")


def test_what_is_pressed_while_the_preview_closes_stays(visit):
    page = visit.go("/?q=bicycle")
    visit.settle()
    page.keyboard.press("ArrowDown")
    page.locator("#wall .card .open").first.press("Enter")
    page.wait_for_selector("#preview[open]")
    # told of the closing, the page asks for a step back in the history; a key may come before that step is done
    page.evaluate(
        "const shown = document.querySelector('#preview'), press = new KeyboardEvent('keydown', { key: 'w' });"
        "shown.addEventListener('close', () => dispatchEvent(press), { once: true }); shown.close()"
    )
    visit.until("!history.state?.preview")
    page.wait_for_timeout(100)
    assert page.is_visible("#order")
    assert "why" in page.url
    assert page.evaluate("document.activeElement.className") == "open"  # the keyboard stays on the card

    page.keyboard.press("Enter")
    page.evaluate("document.querySelector('#preview').close(); document.activeElement.click()")
    page.wait_for_selector("#preview[open]")
    page.wait_for_timeout(100)
    assert page.locator("#stage > *").count() == 1  # the second is not emptied by the end of the first


@pytest.mark.parametrize("width", [375, 1081, 1280])
def test_name_stays_on_one_line_beside_a_choice_of_libraries(visit, width):
    page = visit.go("/?q=bicycle")
    page.set_viewport_size({"width": width, "height": 800})
    page.evaluate("document.querySelector('#library-pick').hidden = false")
    assert page.locator("#home-link").bounding_box()["height"] < 45
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_phone_has_no_sideways_scroll(open_visit, address):
    visit = open_visit(address, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    page = visit.go()
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(wide) == 0
    visit.search('bicycle -"a rather long thing that nobody wants to see at all"')
    page.evaluate("document.querySelector('#why').click()")
    assert page.evaluate(wide) == 0
    page.locator("#wall .open").first.tap()
    page.wait_for_selector("#preview[open]")
    box = page.locator("#preview").bounding_box()
    assert (box["x"], box["width"]) == (0, 360)
    assert page.locator("#preview").evaluate("node => node.scrollWidth <= node.clientWidth")
    for name in ("#act-like", "#act-up", "#next", "#preview-close"):
        assert page.locator(name).bounding_box()["height"] >= 36


def test_dark_by_the_system_and_by_the_button(open_visit, address):
    visit = open_visit(address, color_scheme="dark")
    page = visit.go()
    shade = (
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0)"
    )
    assert page.evaluate(shade) < 150
    page.click("#theme")
    assert page.evaluate(shade) > 600
    page.reload()
    page.wait_for_selector("html[data-theme=light]")
    assert page.evaluate(shade) > 600


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility(open_visit, address, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    visit = open_visit(address, color_scheme=scheme, reduced_motion="reduce")
    page = visit.go()
    found = {}

    def check(name):
        for one in axe.run(page).response["violations"]:
            if one["impact"] in {"serious", "critical"}:
                found[f"{name}: {one['id']}"] = [node["html"][:160] for node in one["nodes"][:3]]

    check("start")
    visit.search("bicycle -chain")
    page.click("#why")
    check("results")
    page.locator("#wall .card").first.hover()
    page.locator("#wall .dots").first.click()
    check("menu")
    page.keyboard.press("Escape")
    for kind in ("page", "text", "moment", "image"):
        page.locator(f"#wall .card[data-kind={kind}] .open").first.click()
        page.wait_for_selector("#preview[open]")
        check(f"preview of {kind}")
        page.keyboard.press("Escape")
        page.wait_for_selector("#preview", state="hidden")
    page.click("#add-open")
    page.wait_for_selector("#failed li")
    check("adding")
    page.keyboard.press("Escape")
    page.click("#keys-open")
    check("keys")
    assert found == {}


# ------------------------------------------------------------------------------------------------- hostile content

ALERT = "window.__ran.push('ran')"
IMG = f"<img src=x onerror={ALERT}>"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory, data):
    """A server on files whose names, texts and metadata want to run in the page."""
    folder = tmp_path_factory.mktemp("hostile")
    names = [
        f"{IMG}.png",
        f'"><script>{ALERT}<.png',
        f"javascript:{ALERT}.png",
        "{{7*7}}.png",
        "photo\u202egnp.exe.png",
        f"' onmouseover={ALERT} x='.png",
    ]
    for number, name in enumerate(names):
        picture(folder / name, (40 * number, 90, 200))
    exif = Image.Exif()
    exif[0x010E], exif[0x013B] = f"{IMG} description", f"<script>{ALERT}</script>"
    Image.new("RGB", (64, 48), RED).save(folder / "exif.jpg", exif=exif)
    text = f"needle </script><script>{ALERT}</script> {IMG} [x](javascript:{ALERT}) {{{{7*7}}}} needle"
    (folder / "text.txt").write_text(text)
    (folder / "note.md").write_text(
        f"# needle {IMG}\n\n<svg onload={ALERT}>needle</svg> <iframe src='javascript:{ALERT}'>"
    )
    pdf(folder / "paper.pdf", [f"needle {IMG} <script>{ALERT.replace('(', '[').replace(')', ']')}</script>"])
    # these two are not indexed, and stand in the list of failures with their names
    (folder / "drawing.png").write_text(f"<svg xmlns='http://www.w3.org/2000/svg' onload='{ALERT}'/>")
    (folder / f"{IMG}.jpg").write_text(f"<html><script>{ALERT}</script>")
    place = tmp_path_factory.mktemp("hostile-index") / "library.sightline"
    index(place, folder)
    with serving() as start:
        yield start(toy_app(library=str(place)))


def test_nothing_in_files_runs(open_visit, hostile):
    visit = open_visit(hostile)
    page = visit.go("/?q=needle&why=1")
    visit.settle()
    page.wait_for_selector("#wall .card")
    assert len(visit.titles) >= 9
    page.locator("#wall .open").first.click()
    for _ in visit.titles:
        page.wait_for_timeout(100)
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    page.wait_for_selector("#preview", state="hidden")
    first = page.locator("#wall .card").first
    first.hover()
    first.locator(".dots").click()
    with page.expect_response("**/v1/search"):
        page.get_by_role("menuitem", name="Not this").click()
    visit.settle()
    page.click("#add-open")
    page.wait_for_selector("#failed li")
    assert IMG in page.text_content("#failed")
    texts = page.text_content("#wall") or ""
    assert IMG in texts and "{{7*7}}" in texts and "</script>" in texts  # shown as what they are
    strange = "img[src='x'], script:not([src]), iframe, svg[onload], [onerror], [onmouseover], a[href^='javascript']"
    assert page.locator(strange).count() == 0
    page.wait_for_timeout(300)


@pytest.mark.parametrize("words", [IMG, f'"><script>{ALERT}</script>', "{{7*7}}", f"javascript:{ALERT}", "a\u202eb"])
def test_nothing_in_the_query_runs(open_visit, address, words):
    visit = open_visit(address)
    page = visit.go("/?" + urllib.parse.urlencode({"q": words, "not": words, "under": words}))
    visit.settle()
    assert page.input_value("#q") == words
    assert words in page.text_content("#chips")
    assert page.locator("img[src='x'], script:not([src])").count() == 0
    # a folder that is not there is no error; whatever the server says to it is shown as text
    page.wait_for_selector("#notice:not([hidden])")


def test_nothing_in_an_error_or_an_answer_runs_or_leads_away(visit):
    page = visit.go()
    page.route("**/v1/search", lambda route: route.fulfill(status=400, json={"error": {"message": IMG}}))
    visit.search("bicycle")
    page.wait_for_selector("#notice[role=alert]")
    assert IMG in page.text_content("#notice")
    assert page.locator("#notice img").count() == 0
    hit: dict[str, Any] = {"id": "0" * 32, "rank": 1, "score": 0.5, "recall_score": 0.5, "recall_rank": 1, "rerank_score": 0.5,
           "kind": "image", "title": IMG, "path": IMG, "page": None, "start_s": None, "end_s": None, "snippet": IMG,
           "matches": [[0, 3], [2, 9], [5, 900], [-1, 2]], "thumbnail": "https://elsewhere.example/a.png",
           "preview": "//elsewhere.example/b.png", "media": f"javascript:{ALERT}", "label": 0}  # fmt: skip
    body = {"library": "default", "hits": [hit], "took_ms": {"total": 1, "embed": 1, "recall": 0, "rerank": 0}}
    page.unroute("**/v1/search")
    page.route("**/v1/search", lambda route: route.fulfill(json=body))
    gone = []
    page.on("request", lambda request: gone.append(request.url))
    visit.search("again")
    page.locator("#wall .open").first.click()
    page.wait_for_selector("#preview[open]")
    assert page.is_hidden("#act-open")
    page.wait_for_timeout(200)
    assert [url for url in gone if "elsewhere" in url] == []
    assert page.locator("img[src='x']").count() == 0
    assert [one for one in visit.wrong if "status of 4" not in one] == []
    visit.wrong.clear()


# -------------------------------------------------------------------------------------------------------- sign in


def test_key_is_asked_for_and_opens_the_page(serve, open_visit, tmp_path):
    key = "a-key-of-the-tests-0123456789"
    visit = open_visit(serve(toy_app(library=str(tmp_path / "library.sightline"), serve_keys=key)))
    page = visit.page
    page.goto("/")
    page.fill("#key", "wrong-key-wrong-key-wrong-key")
    page.press("#key", "Enter")
    page.wait_for_selector("#wrong")
    page.fill("#key", key)
    page.press("#key", "Enter")
    page.wait_for_selector("html[data-ready]")
    page.wait_for_selector("#notice:not([hidden])")
    assert "empty" in page.text_content("#notice")
    assert all("401" in one for one in visit.wrong)
    visit.wrong.clear()
