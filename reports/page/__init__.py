"""One self-contained HTML page of tables, searches, trainings and comparisons.

``parts`` are what a page consists of, ``charts`` its Vega-Lite figures, ``table_part``,
``difference_part``, ``search_part``, ``training_part`` and ``comparison_part`` say what there is to
show of each kind of file, ``collect`` tells the kinds apart and ``write`` makes the page.
"""
