"""The built site in a browser: what readers see, hear, click on and get."""

import io
import re
import zlib
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from PIL import Image, ImageStat

from helpers import HTML, PAGE, PAGES, ROOT, SITE, built, download


def path_of(file):
    """Return the path of a file in the address of the site."""
    return file.relative_to(SITE).as_posix()


PATHS = list(map(path_of, HTML))
PLOT = path_of(built(PAGE))
PLOTS = [path_of(built(page)) for page in PAGES]
# Images are shown by the same code everywhere: in cards, in a document, on a page.
WITH_IMAGES = ["index.html", "auto_examples/index.html", PLOT]
MODES = ["light", "dark"]
WIDTHS = [1280, 375]  # a laptop, a phone


def options(mode="light", width=1280, **others):
    viewport = {"width": width, "height": 800}
    return {"color_scheme": mode, "viewport": viewport, **others}


@pytest.fixture
def page(browser):
    """Open a tab on a light laptop; in this file, that is what a page is."""
    with browser.new_context(**options()) as context:
        yield context.new_page()


@pytest.fixture(params=WIDTHS, scope="module")
def width(request):
    return request.param


@pytest.fixture(params=MODES, scope="module")
def mode(request):
    return request.param


@pytest.fixture(scope="module")
def context(browser, mode, width):
    """All pages of one mode and width share a cache."""
    with browser.new_context(**options(mode, width)) as context:
        yield context


def watch(page, site_url):
    """Return a list that fills with what goes wrong while ``page`` loads."""
    faults = []

    def on_console(message):
        if message.type in ("error", "warning"):
            faults.append(f"console: {message.text}")

    def on_request(request):
        if not request.url.startswith(site_url):
            faults.append(f"another host: {request.url}")

    def on_response(response):
        if not response.ok:
            faults.append(f"{response.status}: {response.url}")

    page.on("console", on_console)
    page.on("request", on_request)
    page.on("response", on_response)
    page.on("pageerror", lambda error: faults.append(f"script: {error}"))
    page.on("requestfailed", lambda request: faults.append(f"failed: {request.url}"))
    return faults


def requested_images(page):
    """Return a list that fills with the names of the images that ``page`` asks for."""
    names = []

    def on_request(request):
        if request.resource_type == "image" and "/_images/" in request.url:
            names.append(request.url.rpartition("/")[2])

    page.on("request", on_request)
    return names


def show_images(page):
    """Scroll to each visible image, since they load lazily; return those that fail."""
    return page.evaluate("""async () => {
        const shown = [...document.images].filter(image => image.checkVisibility());
        for (const image of shown) {
            image.scrollIntoView({behavior: "instant"});
            await image.decode().catch(() => {});
        }
        return shown.filter(image => !image.naturalWidth).map(image => image.src);
    }""")


def test_the_site_is_built():
    """No page would be no test below."""
    assert {"index.html", "search.html", "404.html", *PLOTS} <= set(PATHS)


# Every page


@pytest.mark.parametrize("path", PATHS)
def test_page(path, context, site_url):
    """Accessible, whole, not wider than the window, and nothing goes wrong."""
    page = context.new_page()
    faults = watch(page, site_url)
    page.goto(f"{site_url}/{path}")
    # What is collapsed must be as good as the rest.
    page.eval_on_selector_all("details", "all => all.forEach(x => x.open = true)")
    faults += [f"image: {source}" for source in show_images(page)]
    width = page.evaluate("document.documentElement.scrollWidth")
    if width > page.viewport_size["width"]:
        faults.append(f"scrolls sideways: {width} px wide")
    # With preloading, which no rule here uses, axe itself asks for addresses that there
    # are not.
    options = {"resultTypes": ["violations"], "preload": False}
    contrast = {"runOnly": ["color-contrast"]} | options
    others = {"rules": {"color-contrast": {"enabled": False}}} | options
    # The colours of code, which take most of the time, are those of all widths.
    narrow = page.viewport_size["width"] == min(WIDTHS)
    part = {"exclude": [["pre"]]} if narrow else None
    runs = Axe().run(page, options=others), Axe().run(page, part, contrast)
    for rule in (rule for run in runs for rule in run.response["violations"]):
        faults += [f"axe: {rule['id']} {node['target']}" for node in rule["nodes"]]
    page.close()
    assert not faults, "\n".join(faults)


def test_a_missing_page(page, site_url):
    """At any depth, it has its styles and scripts, and leads home."""
    faults = watch(page, site_url)
    address = f"{site_url}/auto_examples/deep_learning/nothing.html"
    assert page.goto(address).status == 404
    page.wait_for_load_state("networkidle")
    # The browser says that the page is missing, and nothing else.
    assert len(faults) == 2, faults
    missing, console = faults
    assert missing == f"404: {address}"
    assert console.startswith("console: Failed to load resource") and "404" in console
    assert page.locator("h1:visible").inner_text().startswith("Page not found")
    bar, text = (page.locator(x).bounding_box() for x in (".bd-sidebar", "article"))
    assert bar["x"] + bar["width"] <= text["x"], "not styled: the bar is not beside"
    page.get_by_role("link", name="Stochastic solver gallery").click()
    page.wait_for_url("**/index.html")
    assert page.title().startswith("Stochastic solver gallery")


@pytest.mark.parametrize("path", PATHS)
def test_text_on_a_phone_is_not_too_small(browser, site_url, path):
    """12 px at least, whatever it is."""
    with browser.new_context(**options(width=375)) as context:
        page = context.new_page()
        page.goto(f"{site_url}/{path}")
        page.eval_on_selector_all("details", "all => all.forEach(x => x.open = true)")
        small = page.evaluate("""() => {
            const {SHOW_TEXT} = NodeFilter;
            const texts = document.createTreeWalker(document.body, SHOW_TEXT);
            const small = [];
            while (texts.nextNode()) {
                const text = texts.currentNode, element = text.parentNode;
                const size = parseFloat(getComputedStyle(element).fontSize);
                if (text.data.trim() && element.checkVisibility() && size < 12)
                    small.push(`${size} px: ${text.data}`);
            }
            return small;
        }""")
    assert not small


# The parts of a page


@pytest.mark.parametrize("path", PLOTS)
def test_the_log_can_be_read(browser, site_url, width, path):
    """Its lines do not wrap, and it scrolls sideways alone, by keyboard, too."""
    with browser.new_context(**options(width=width)) as context:
        page = context.new_page()
        page.goto(f"{site_url}/{path}")
        page.wait_for_load_state("networkidle")
        for log in page.locator(".sphx-glr-script-out pre").all():
            tops, lines, seen, whole, size, tab = log.evaluate("""log => {
                const range = document.createRange();
                range.selectNodeContents(log);
                const parts = [...range.getClientRects()].filter(part => part.width);
                return [
                    new Set(parts.map(part => Math.round(part.top))).size,
                    log.textContent.split("\\n").filter(line => line.trim()).length,
                    [log.clientWidth, log.clientHeight],
                    [log.scrollWidth, log.scrollHeight],
                    parseFloat(getComputedStyle(log).fontSize),
                    log.tabIndex,
                ];
            }""")
            assert tops == lines > 0
            assert seen[1] == whole[1]
            assert size >= 12
            assert (tab == 0) == (seen[0] < whole[0])


@pytest.mark.parametrize("path", PATHS)
def test_text_can_be_read_on_a_phone(browser, site_url, path):
    """No text that is seen is smaller than 12 px, wherever it unfolds."""
    with browser.new_context(**options(width=min(WIDTHS))) as context:
        page = context.new_page()
        page.goto(f"{site_url}/{path}")
        page.eval_on_selector_all("details", "all => all.forEach(x => x.open = true)")
        small = page.evaluate("""() => {
            const all = [...document.querySelectorAll("article *, footer *")];
            return all.filter(tag => {
                const texts = [...tag.childNodes].filter(node => node.nodeType == 3);
                const text = texts.some(node => node.data.trim());
                const style = getComputedStyle(tag);
                const shown = tag.checkVisibility({visibilityProperty: true});
                return text && shown && parseFloat(style.fontSize) < 12
                    && !tag.matches(".headerlink, math *");
            }).map(tag => tag.outerHTML.slice(0, 80));
        }""")
        assert not small, small


# Folds


FOLD = "#settings > details.plumbing"


def is_open(page, fold=FOLD):
    """Tell whether a fold is open."""
    return page.locator(fold).evaluate("fold => fold.open")


def test_folds_are_closed_and_show_what_they_are(page, site_url):
    """Their title and first paragraph, in which links can be followed."""
    page.goto(f"{site_url}/{PLOT}")
    folds = page.locator("details.plumbing").all()
    assert len(folds) > 1
    for fold in folds:
        assert fold.locator("summary h2").is_visible()
        assert fold.locator("+ .plumbing-lead").is_visible()
        assert not fold.locator(".highlight-Python").first.is_visible()
    assert not is_open(page)
    page.locator(f"{FOLD} h2").click()
    assert is_open(page)
    page.locator(f"{FOLD} h2").click()
    assert not is_open(page)


def test_folds_open_for_links_into_them(page, site_url):
    """As a page is opened, from the contents, once more, and from the address bar."""
    page.goto(f"{site_url}/{PLOT}#settings")
    page.wait_for_function("document.querySelector(`details.plumbing[open]`)")
    assert is_open(page)
    assert page.locator("details.plumbing[open]").count() == 1
    page.goto(f"{site_url}/{PLOT}?again")
    link = page.locator(".bd-sidebar-secondary a[href='#settings']")
    for _ in range(2):
        assert not is_open(page)
        link.click()
        page.wait_for_function("document.querySelector(`details.plumbing[open]`)")
        assert is_open(page)
        page.locator(f"{FOLD} h2").click()
    page.evaluate("location.hash = '#data'")
    page.wait_for_function("document.querySelector(`#data > details`).open")
    assert not is_open(page)


def test_folds_open_for_a_search(page, site_url):
    """Where a word that was searched for is in one, and no other."""
    page.goto(f"{site_url}/{PLOT}")
    words = page.locator(f"{FOLD} .highlight-Python").first.text_content()
    others = page.locator("#data > details.plumbing").text_content()
    word = next(
        x for x in re.findall(r"[a-z]{6,}", words) if x.lower() not in others.lower()
    )
    page.goto(f"{site_url}/{PLOT}?highlight={word}")
    page.wait_for_selector(f"{FOLD} .highlighted:visible")
    assert is_open(page)
    assert not is_open(page, "#data > details.plumbing")


def test_the_command_is_copied(page, site_url):
    """It has a button of its own, which takes no room when it comes."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"{site_url}/{PLOT}")
    page.click(".page-command button.copybtn")
    page.wait_for_selector(".page-command button.success")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == f"uv run {PAGE.name}"
    with_button = page.locator(".page-command").bounding_box()
    page.locator(".page-command button").evaluate("button => button.remove()")
    assert page.locator(".page-command").bounding_box() == with_button


def test_mathematics(page, site_url):
    """MathML needs no script, and is as high as the text around it."""
    scripts = []
    page.on("request", lambda x: x.resource_type == "script" and scripts.append(x.url))
    page.goto(f"{site_url}/{PLOT}")
    formula = page.locator("article math").first
    size = formula.evaluate("x => parseFloat(getComputedStyle(x.parentNode).fontSize)")
    box = formula.bounding_box()
    assert size < box["height"] < 2.5 * size
    assert 3 * size < box["width"] < 12 * size
    assert scripts and not [url for url in scripts if "mathjax" in url.lower()]


# Images


def twins(page):
    """Return the light images in the text and the dark ones, as many."""
    light, dark = (page.locator(f"article img.only-{mode}").all() for mode in MODES)
    assert len(light) == len(dark) > 0
    return {"light": light, "dark": dark}


def check_twins(page, mode):
    """Of each two images, that of ``mode`` is visible, and is light or dark itself."""
    for other, images in twins(page).items():
        assert [image.is_visible() for image in images] == [other == mode] * len(images)
    for image in twins(page)[mode]:
        with Image.open(io.BytesIO(image.screenshot())) as shot:
            (brightness,) = ImageStat.Stat(shot.convert("L")).mean
        assert brightness > 200 if mode == "light" else brightness < 60, brightness


@pytest.mark.parametrize("path", WITH_IMAGES)
def test_dark_mode_changes_the_images(browser, site_url, mode, path):
    """As the system says, and then as the reader does; only these are fetched."""
    (other,) = set(MODES) - {mode}
    with browser.new_context(**options(mode)) as context:
        page = context.new_page()
        names = requested_images(page)
        page.goto(f"{site_url}/{path}")
        page.wait_for_load_state("networkidle")
        assert not show_images(page)
        check_twins(page, mode)
        assert {"dark" if "_dark" in name else "light" for name in names} == {mode}
        page.locator(".theme-switch-button:visible").click()
        page.locator(f".theme-change-button[data-mode={other}]:visible").click()
        assert not show_images(page)
        check_twins(page, other)
        # It is remembered.
        page.reload()
        check_twins(page, other)


@pytest.mark.parametrize("path", ["index.html", *PLOTS])
def test_a_document_weighs_little_before_its_images(browser, site_url, path):
    """As a server sends it that compresses what is not compressed already."""
    with browser.new_context(**options()) as context:
        page, responses = context.new_page(), []
        page.on("response", lambda response: responses.append(response))
        page.goto(f"{site_url}/{path}")
        page.wait_for_load_state("networkidle")
        sizes = [
            len(zlib.compress(response.body()))
            for response in responses
            if response.request.resource_type != "image"
        ]
    assert 100_000 < sum(sizes) < 300_000


# Pixels from the top at which question, first finding, figure and code begin, at most.
LIMITS = {1280: (300, 650, 900, 2_000), 375: (350, 900, 1_300, 2_400)}
PLACES = """() => {
    const top = node => node.getBoundingClientRect().top + scrollY;
    const article = document.querySelector("article");
    const all = name => [...article.querySelectorAll(name)];
    return [
        all("p").find(paragraph => paragraph.textContent.includes("?")),
        article.querySelector(".admonition-in-short li"),
        all("img").find(image => image.checkVisibility()),
        all(".highlight-Python").find(code => !code.closest("details")),
    ].map(top);
}"""


@pytest.mark.parametrize("path", PLOTS)
def test_the_answer_is_within_two_screens(browser, site_url, width, path):
    with browser.new_context(**options(width=width)) as context:
        page = context.new_page()
        page.goto(f"{site_url}/{path}")
        page.evaluate("document.fonts.ready")
        places = page.evaluate(PLACES)
    assert places == sorted(places)
    for place, limit in zip(places, LIMITS[width], strict=True):
        assert place < limit, places


@pytest.mark.parametrize("scale, name", [(1, r"_\d{3}\.png"), (2, r"_\d{3}_2x\.png")])
def test_sharp_screens_get_sharp_figures(browser, site_url, scale, name):
    with browser.new_context(**options(device_scale_factor=scale)) as context:
        page = context.new_page()
        names = requested_images(page)
        page.goto(f"{site_url}/{PLOT}")
        assert not show_images(page)
        figures = page.locator("article img.sphx-glr-single-img:visible").all()
        for figure in figures:
            assert re.search(f"{name}$", figure.evaluate("image => image.currentSrc"))
        assert len([x for x in names if "_card" not in x]) == len(figures) > 0


@pytest.mark.parametrize("path", WITH_IMAGES)
def test_images_keep_their_place(browser, site_url, width, path):
    """An image has the same box before it loads as after, and nothing else moves."""
    with browser.new_context(**options(width=width)) as context:
        page, held = context.new_page(), []
        page.route("**/_images/*", lambda route: held.append(route))
        page.goto(f"{site_url}/{path}", wait_until="domcontentloaded")
        for image in page.locator("article img").all():
            first = image.evaluate("""image => {
                const eager = document.querySelector(".page-caption, .page-entry");
                const shown = document.querySelector("article .only-light");
                return Boolean(eager) && image == shown;
            }""")
            assert image.get_attribute("loading") == ("eager" if first else "lazy")
            size = [image.get_attribute(name) for name in ("width", "height")]
            assert all(text and text.isdecimal() for text in size), size
        images = twins(page)["light"]
        assert not any(image.evaluate("x => x.naturalWidth") for image in images)
        boxes = [image.bounding_box() for image in images]
        page.evaluate("document.fonts.ready")
        page.route("**/_images/*", lambda route: route.continue_())
        for route in held:
            route.continue_()
        assert not show_images(page)
        page.evaluate("scrollTo({top: 0, behavior: 'instant'})")
        for image, box in zip(images, boxes, strict=True):
            assert image.bounding_box() == pytest.approx(box, abs=1)
            ratio = image.evaluate("image => image.naturalWidth / image.naturalHeight")
            assert box["width"] / box["height"] == pytest.approx(ratio, rel=0.02)
        moved = page.evaluate("""() => new Promise(resolve => {
            const observer = new PerformanceObserver(list => resolve(
                list.getEntries().reduce((sum, entry) => sum + entry.value, 0)));
            observer.observe({type: "layout-shift", buffered: true});
            setTimeout(() => resolve(0), 200);
        })""")
        assert moved < 0.01


# What readers do


@pytest.mark.parametrize("path", PLOTS)
def test_downloads(page, site_url, path, tmp_path):
    """A click brings what the build made, byte by byte."""
    page.goto(f"{site_url}/{path}")
    for summary in page.locator("summary", has_text="What the figure shows").all():
        summary.click()
    script = (ROOT / "docs" / path).with_suffix(".py")
    notebook, images = script.with_suffix(".ipynb"), script.parent / "images"
    for selector, files in {
        ".page-run a.download": [script, notebook],
        ".sphx-glr-download a.download": [notebook, script],
        ".figure-description a.download": sorted(images.glob(f"*{script.stem}_*.csv")),
    }.items():
        for link, file in zip(page.locator(selector).all(), files, strict=True):
            got = download(link, tmp_path)
            assert got.name == file.name
            assert got.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("path", PLOTS)
def test_search(page, site_url, path):
    """By keyboard, from the home page to a page by the longest word of its title."""
    title = BeautifulSoup((SITE / path).read_text(), "html.parser").h1
    word = max(re.findall(r"\w+", title.find(string=True)), key=len)
    page.goto(f"{site_url}/index.html")
    page.keyboard.press("Control+K")
    page.keyboard.type(word)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/search.html?q={word}")
    page.locator(f"#search-results a[href*='{path}']").first.click()
    page.wait_for_load_state()
    assert urlsplit(page.url).path == f"/{path}"
    marked = page.locator("article h1 .highlighted").all_inner_texts()
    assert [text.lower() for text in marked] == [word.lower()]


@pytest.mark.parametrize("word", ["discussion", "Goldstein", "checkout"])
def test_search_leads_to_sections(page, site_url, word):
    """The first result is a section that has the word, and each shows where it is."""
    page.goto(f"{site_url}/search.html?q={word}")
    page.locator("#search-results p.context").first.wait_for()
    page.wait_for_load_state("networkidle")
    links = page.locator("#search-results li a").all()
    addresses = [link.get_attribute("href") for link in links]
    assert len(set(addresses)) == len(addresses) > 0
    assert "#" in addresses[0]
    for excerpt in page.locator("#search-results p.context").all_inner_texts():
        assert word.lower() in excerpt.lower()
        assert "Contents" not in excerpt and "Skip to" not in excerpt
    name = links[0].inner_text().rpartition(" > ")[2]
    links[0].click()
    section = page.locator(f"section:has(> h2:has-text('{name}'))")
    assert word.lower() in section.inner_text().lower()
    top = section.evaluate("section => section.getBoundingClientRect().top")
    assert -10 < top < 200


def test_printing_from_dark_mode(browser, site_url):
    """Light, with folds open and figures loaded; then all is as it was."""
    with browser.new_context(**options("dark")) as context:
        page = context.new_page()
        page.goto(f"{site_url}/{PLOT}")
        state = """() => ({
            theme: document.documentElement.dataset.theme,
            closed: document.querySelectorAll("article details:not([open])").length,
            lazy: document.querySelectorAll("img[loading=lazy]").length,
        })"""
        before = page.evaluate(state)
        assert before["theme"] == "dark" and before["closed"] > 3 and before["lazy"]
        page.evaluate(
            f"addEventListener('beforeprint', () => window.printed = ({state})())"
        )
        assert page.pdf().startswith(b"%PDF")
        printed = page.evaluate("window.printed")
        assert printed == {"theme": "light", "closed": 0, "lazy": 0}
        assert page.evaluate(state) == before | {"lazy": 0}


@pytest.mark.parametrize("path", ["index.html", PLOT])
def test_without_scripts(browser, site_url, mode, path):
    """Colours of the light mode, whatever the screen's, and no button without use."""
    colours = """() => ["body", "a.reference"].map(
        name => getComputedStyle(document.querySelector(`${name}`)).color)"""
    with browser.new_context(**options()) as context:
        page = context.new_page()
        page.goto(f"{site_url}/{path}")
        expected = page.evaluate(colours)
        assert page.locator("button:visible").count()
    with browser.new_context(**options(mode, java_script_enabled=False)) as context:
        page = context.new_page()
        page.goto(f"{site_url}/{path}")
        assert page.evaluate(colours) == expected
        assert not page.locator("button:visible").count()
        assert "The search needs" in page.locator("noscript p:visible").inner_text()
        assert not page.locator(".only-dark:visible").count()
        assert page.locator(".only-light:visible").count()
        for fold in page.locator("details.plumbing").all():
            assert fold.locator(".highlight-Python").first.is_visible()


def test_the_focus_is_seen_in_the_bar_at_the_top(page, site_url):
    page.goto(f"{site_url}/{PLOT}")
    seen = 0
    for _ in range(40):
        page.keyboard.press("Tab")
        outline = page.evaluate("""() => {
            const focus = document.activeElement;
            if (!focus.matches(".bd-header-article button")) return null;
            return getComputedStyle(focus).outlineStyle;
        }""")
        assert outline in (None, "solid")
        seen += outline == "solid"
    assert seen >= 2


def focused(page):
    """Return the classes of what has the focus, and whether it is seen to have it."""
    return page.evaluate("""() => {
        const {className, matches} = document.activeElement;
        const {outlineStyle} = getComputedStyle(document.activeElement);
        return [className, outlineStyle == "solid"];
    }""")


@pytest.mark.parametrize("side", ["primary", "secondary"])
def test_drawers_of_a_phone(browser, site_url, side):
    """A tap on an entry closes one and leads there, and Escape leads back."""
    phone = options(width=375, has_touch=True, is_mobile=True)
    with browser.new_context(**phone) as context:
        page = context.new_page()
        page.goto(f"{site_url}/{PLOT}")
        button = page.locator(f".{side}-toggle")
        drawer = page.locator(f"#pst-{side}-sidebar-modal")
        button.focus()
        page.keyboard.press("Enter")
        drawer.wait_for(state="visible")
        page.keyboard.press("Escape")
        drawer.wait_for(state="hidden")
        page.wait_for_function(
            "name => document.activeElement.classList.contains(name)",
            arg=f"{side}-toggle",
        )
        assert focused(page)[1]
        button.tap()
        entry = drawer.locator("a:visible").nth(1)
        target = entry.evaluate("link => link.href")
        entry.tap()
        page.wait_for_url(target)
        drawer.wait_for(state="hidden")
        if side == "secondary":
            section = page.locator(f"#{urlsplit(target).fragment}")
            top = section.evaluate("section => section.getBoundingClientRect().top")
            assert -10 < top < 200


def test_the_menu_of_colour_modes_keeps_the_focus(page, site_url, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(f"{site_url}/index.html")
    page.locator(".theme-switch-button:visible").focus()
    for key in ("Enter", "ArrowDown", "ArrowDown", "ArrowDown", " "):
        page.keyboard.press(key)
        names, seen = focused(page)
        assert seen
        assert ("theme-change-button" in names) == (key == "ArrowDown")
    assert "theme-switch-button" in names
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert not page.locator(".dropdown-menu.show").count()


def test_copy_buttons_are_seen_by_touch(browser, site_url):
    touch = {"has_touch": True, "is_mobile": True}
    for more, opacity in ((touch, "1"), ({}, "0")):
        with browser.new_context(**options(width=375, **more)) as context:
            page = context.new_page()
            page.goto(f"{site_url}/index.html")
            button = page.locator("button.copybtn").first
            shown = button.evaluate("button => getComputedStyle(button).opacity")
            assert shown == opacity


def test_icons_are_seen(page, site_url):
    """Each is a sign of a font that has arrived."""
    page.goto(f"{site_url}/{PLOT}")
    icons = page.locator("i[class*='fa-']:visible, span[class*='fa-']:visible")
    assert icons.count() > 3
    page.evaluate("document.fonts.ready")
    for icon in icons.all():
        family, sign = icon.evaluate("""icon => {
            const style = getComputedStyle(icon, "::before");
            return [style.fontFamily, style.content];
        }""")
        assert "Font Awesome" in family
        assert re.match('"[\ue000-\uf8ff]"', sign)  # what fonts may use for their own
    families = page.evaluate("""() => [...document.fonts]
        .filter(font => font.status == "loaded").map(font => font.family)""")
    assert any("Font Awesome" in family for family in families)


@pytest.mark.parametrize(
    "path, block, text",
    [
        ("index.html", ".highlight:has-text('$ uv run')", "uv run plot_sgd_solvers.py"),
        (PLOT, ".page-without-uv .highlight", "pip install "),
    ],
    ids=["console", "without uv"],
)
def test_copy_button(page, site_url, path, block, text):
    """What is copied can be pasted into a shell: whole, and without its prompt."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"{site_url}/{path}")
    page.eval_on_selector_all("details", "all => all.forEach(x => x.open = true)")
    shown = page.locator(f"{block} pre").text_content().strip()
    page.hover(block)
    page.click(f"{block} button.copybtn")
    page.wait_for_selector(f"{block} button.success")
    copied = page.evaluate("navigator.clipboard.readText()").strip()
    assert copied.startswith(text)
    assert copied == shown.removeprefix("$ ")
