"""The report of a load test: verdict, one HTML file, JUnit, live view, comparison.

summary.py     what a run found, and its JSON schema
thresholds.py  the names and limits of a scenario's thresholds
verdict.py     pass, threshold, audit, invalid: from a summary
charts.py      SVG
html.py        one file, without scripts, in two languages; report.css its looks
sections.py    what stands below its key figures
parts.py       tables, figures, texts in two languages
texts.py       the words
live.py        progress on a terminal, plain or as JSON lines
junit.py       for CI
prometheus.py  for a scrape during the run
compare.py     two runs, or two folders of runs
"""
