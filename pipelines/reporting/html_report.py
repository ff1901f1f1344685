"""One self-contained HTML page per run: scores with their protocol, pictures, curves, the search."""

import base64
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment

from gan_core.extensions.measures import described_measures

# Table 1 of the paper: Parzen-window log-likelihood, nats; of TFD, mean and standard error over its five folds.
PAPER_TABLE_1 = {
    "mnist": (("DBN", 138, 2.0), ("Stacked CAE", 121, 1.6), ("Deep GSN", 214, 1.1), ("Adversarial nets", 225, 2.0)),
    "tfd": (("DBN", 1909, 66), ("Stacked CAE", 2110, 50), ("Deep GSN", 1890, 29), ("Adversarial nets", 2057, 26)),
}

MEASURES = ("precision", "recall", "density", "coverage", "duplicates", "memorisation")

TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ run }}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1c1c1c }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .25rem .9rem .25rem 0; text-align: left; border-bottom: 1px solid #ddd }
td.number { text-align: right; font-variant-numeric: tabular-nums } img { max-width: 100% } .grid { image-rendering: pixelated }
pre { background: #f6f6f6; padding: 1rem; overflow-x: auto; font-size: .85rem } .note { color: #666; font-size: .9rem }
</style></head><body>
<h1>{{ run }}</h1>
<p>{{ score.log_likelihood | round(1) }} ± {{ score.standard_error | round(1) }} nats on the test set of {{ data }}, Parzen window,
protocol <em>paper</em>{% if score.weights == "averaged" %}, averaged weights of G{% endif %}, sigma {{ '%.4f' | format(score.sigma) }}; coverage {{ '%.2f' | format(score.coverage) }}.
{% if registered %}Registered as <strong>{{ registered.model }}/{{ registered.version }}</strong> ({{ registered.alias }}): {{ registered.reason }}.{% endif %}</p>
<h2>Scores</h2>
<table><tr><th>samples from</th><th>log-likelihood, nats</th><th>sigma</th><th>protocol</th></tr>
{% for row in rows %}<tr><td>{{ row.name }}</td><td class="number">{{ '%.1f' | format(row.log_likelihood) }} ± {{ '%.1f' | format(row.standard_error) }}</td>
<td class="number">{{ '%.4f' | format(row.sigma) }}</td><td>{{ row.protocol }}</td></tr>
{% endfor %}</table>
<p class="note">A Parzen score rewards smooth samples: read it beside the reference rows (the training images themselves, and their k-means
centroids) and the qualities below.
{{ score.paper.samples }} samples; sigma from {{ score.paper.validation_points }} validation images; folds' sigmas
{% for sigma in score.cross_validated.fold_sigmas %}{{ '%.4f' | format(sigma) }}{{ ", " if not loop.last }}{% endfor %}.</p>
<h2>Quality</h2>
<table><tr><th>samples from</th>{% for measure in measured %}<th>{{ measure }}</th>{% endfor %}</tr>
{% for name, quality in qualities %}<tr><td>{{ name }}</td> {% for measure in measured %}<td class="number">{% if quality[measure] is number %}{{ '%.2f' | format(quality[measure]) }}{% endif %}</td> {% endfor %}</tr>
{% endfor %}</table>
<p class="note">In pixel space, {% if score.quality and score.quality.count %}of {{ score.quality.count }} samples and as many test images in every row, {% endif %}by {{ neighbours }} nearest neighbours. k-means
centroids are repeated to that number. Precision: samples among real images; recall: real images
among samples; density: real neighbourhoods that hold a sample; coverage: those that hold at least one. Duplicates: samples as near to another as
1 % of real images are. Memorisation: how often a sample is nearer to the training images than a test image is; 0.5 for fresh images, 1 for copies.</p>
{% if measures %}<h2>{{ "Classes asked for" if "classes.png" in pictures else "Missing pixels filled in" }}</h2>
<table>{% for line in measures %}<tr><td>{{ line }}</td></tr>{% endfor %}</table>
{% if "classes.png" in pictures %}<p class="note">A class a row; the samples of a column have the same z.</p>
<img class="grid" alt="Samples of each class" src="{{ pictures['classes.png'] }}">{% endif %}
{% if "completions.png" in pictures %}<p class="note">A test image a row: it, what is observed of it, and eight completions.</p>
<img class="grid" alt="Completions of test images" src="{{ pictures['completions.png'] }}">{% endif %}{% endif %}
<h2>Choice of sigma</h2><p class="note">The mean log-likelihood of the validation images along each protocol's grid; lines at the sigma chosen, ticks
at those of the folds.</p><img alt="Validation log-likelihood against sigma" src="{{ pictures['sigma.png'] }}">
{% if table %}<h2>Table 1 of the paper, {{ data | upper }}{{ ", over five folds" if data == "tfd" }}</h2><table>
{% for name, mean, error in table %}<tr><td>{{ name }}</td><td class="number">{{ mean }} ± {{ error }}</td></tr>{% endfor %}</table>{% endif %}
<h2>Samples and their nearest training images</h2>
<p class="note">As Fig. 2: uncurated; the last column is the training image nearest to the sample beside it.</p>
<img class="grid" alt="Samples, with nearest training images in the last column" src="{{ pictures['samples.png'] }}">
<h2>Along straight lines in z</h2><img class="grid" alt="Interpolation between samples" src="{{ pictures['interpolation.png'] }}">
{% if inferred %}<h2>Reconstructions</h2><p class="note">Test images x, and beside each G(E(x)); E was trained for {{ inferred.step }} steps once G was fixed.
Mean squared error {{ '%.3g' | format(inferred.reconstruction.error) }}; of the nearest of {{ inferred.reconstruction.samples }} samples {{ '%.3g' | format(inferred.reconstruction.nearest_sample_error) }},
of the training images' mean {{ '%.3g' | format(inferred.reconstruction.mean_image_error) }}. On samples, |G(E(G(z))) - G(z)| is {{ '%.3g' | format(inferred.reconstruction.cycle_distance) }},
with a random z {{ '%.3g' | format(inferred.reconstruction.random_distance) }}.</p>
<img class="grid" alt="Test images and their reconstructions, in pairs" src="{{ pictures['reconstructions.png'] }}">{% endif %}
<h2>Training</h2><p>{{ trained.step }} steps on {{ trained.device }} in {{ trained.seconds | round | int }} s.</p>
<img alt="Training curves" src="{{ pictures['curves.png'] }}">
{% if searched %}<h2>Search</h2><p>{{ searched.candidates }} candidates, {{ searched.diverged }} diverged; chosen:
{% for key, value in searched.chosen.items() %}{{ key }} {{ value }}{{ ", " if not loop.last }}{% endfor %}{% if searched.reason %}: {{ searched.reason }}{% endif %}.
{% if searched.against_configuration %}{% set test = searched.against_configuration %}The best candidate, {{ test.candidate }}, against the
configuration at step {{ searched.step }}: {{ '%+.1f' | format(test.difference) }} ± {{ '%.1f' | format(test.standard_error) }} nats over
{% if test.seeds > 1 %}{{ test.seeds }} seeds{% else %}{{ test.sample_sets }} sets of samples of one seed{% endif %} and
{{ test.points }} validation points, at least {{ '%+.1f' | format(test.lower_bound) }} at {{ '%.0f' | format(100 * test.confidence) }} %.{% endif %}
{% for failed in searched.failed_trainings %}The training of candidate {{ failed.candidate }} failed ({{ failed.error }}).{% endfor %}</p>
<img alt="Search results" src="{{ pictures['search.png'] }}">{% endif %}
<h2>Made from</h2><table><tr><td>weights</td><td><code>{{ trained.weights_sha256 }}</code></td></tr>
<tr><td>data</td><td><code>{{ score.data_digest }}</code></td></tr><tr><td>commit</td><td><code>{{ commit }}</code></td></tr></table>
<details><summary>Resolved configuration</summary><pre>{{ configuration }}</pre></details>
</body></html>
"""


def render(
    run: str,
    data: str,
    records: Mapping[str, Mapping[str, Any]],
    pictures: Mapping[str, bytes],
    configuration: str,
    commit: str,
    neighbours: int,
) -> str:
    """The page, everything inside it. `records` are those of the stages that ran, by stage."""
    score = records["evaluate"]
    whose = f"the model, {score['weights']} G"
    rows = [
        {"name": whose, **_row(score["paper"])},
        {"name": whose, **_row(score["cross_validated"])},
        *({"name": name, "protocol": "paper", **row} for name, row in score["references"].items()),
    ]
    qualities = {whose: score["quality"] or {"coverage": score["coverage"]}, **score["references"]}
    embedded = {
        name: "data:image/png;base64," + base64.b64encode(content).decode() for name, content in pictures.items()
    }
    page = Environment(autoescape=True).from_string(TEMPLATE)
    return page.render(
        qualities=qualities.items(), measured=MEASURES, measures=described_measures(score["extension"]),
        run=run, data=data, score=score, rows=rows, pictures=embedded, table=PAPER_TABLE_1.get(data), configuration=configuration, commit=commit, neighbours=neighbours,
        trained=records["train"], searched=records.get("tune"), inferred=records.get("infer"), registered=records.get("register"),
    )  # fmt: skip


def _row(score: Mapping[str, Any]) -> dict[str, Any]:
    return {key: score[key] for key in ("protocol", "log_likelihood", "standard_error", "sigma")}
