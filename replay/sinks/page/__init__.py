"""The page that HtmlSink writes: its template, style and script, and the plain data they show.

In: windows, and recordings for the page's head. Out: the page's text. Open page.py first; head.js,
board.js and figure.js draw what windows.py and runs.py give them; table.js makes the page of a
table of runs.
"""

# The files that other folders may import; tests/test_layout.py holds them to it.
DOORS = ("page", "runs")
