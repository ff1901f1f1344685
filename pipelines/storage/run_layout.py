"""The layout of a run's folder: every file and folder in it, named once.

run.json                 name, commit, resolved configuration, origin
environment.json         when the run was begun, on what machine, by which versions
owner.json               who works on it, while somebody does; stop-request.json asks them to save and stop
records/STAGE.json       the record of a finished stage, and a digest of its inputs
tune/                    the search: findings/ (results by candidate, kept), table.parquet and its digest, perturbations.json,
                         learned.json (what earlier searches gave it), and Ray's working memory of its searches
origin/                  the checkpoint that a warm start begins with
checkpoints/, history/   of G's and D's training, beside live.json, stop.json and Ray Train's working memory
encoder/                 the same of the inference net: checkpoints, history/, live.json, stop.json
samples/                 step=N.png: samples of the same z on G's way
report/                  report.html and its pictures
"""

RUN, ENVIRONMENT = "run.json", "environment.json"
OWNER, STOP_REQUEST = "owner.json", "stop-request.json"
TUNE, RESULTS = "tune", "findings"  # RESULTS in TUNE
SEGMENT = "stretch.json"  # in the folder of a segment of RESULTS: its job and its origin
TABLE, TABLE_DIGEST, PERTURBATIONS = "tune/table.parquet", "tune/table.json", "tune/perturbations.json"
LEARNED = "tune/learned.json"
ORIGIN, CHECKPOINTS, ENCODER = "origin", "checkpoints", "encoder"
HISTORY, LIVE, STOP, RAY_TRAIN = "history", "live.json", "stop.json", "ray-train"  # in the folder of a training
SAMPLES = "samples"
REPORT, PAGE = "report", "report.html"  # PAGE in REPORT


def record(stage: str) -> str:
    """The file of a finished stage's record."""
    return f"records/{stage}.json"
