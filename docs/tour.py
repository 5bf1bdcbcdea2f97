# %% [markdown]
# # A tour for data scientists
#
# Every retraining is a run in MLflow, every candidate a child of it, every model a version that
# says why it serves or does not. This script looks at all of them, asks a version for answers and
# tries a recipe of its own. It runs as it is, or cell by cell in an editor that knows `# %%`:
#
#     malearn run          # once, so that there is something to see
#     malearn up           # says where MLflow is; leave it running
#     MLFLOW_TRACKING_URI=http://127.0.0.1:… MALEARN_HOME=… python docs/tour.py llm_process
#
# `MALEARN_HOME` is where `malearn run` left its data; without it, the directory that is above this
# file if it holds any, else the working directory.

# %%
from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import mlflow
import pandas as pd

from malearn.data.dataset import Dataset
from malearn.kernel import tool_types
from malearn.kernel.home import Home
from malearn.learning import baselines, matrix, metrics, regressor

warnings.filterwarnings("ignore", message="Any type hint is inferred")  # MLflow, of itself
types = tool_types.declared()
beside = Path(__file__).resolve().parents[1] if "__file__" in globals() else Path.cwd()
home = Home.find(
    beside if "MALEARN_HOME" not in os.environ and (beside / "data").is_dir() else None
)
TOOL = next((word for word in sys.argv[1:] if word in types), "llm_process")
NAME = types[TOOL].registered_model  # the experiment has the same name

# %% [markdown]
# ## The retrainings
#
# One experiment a tool type. `test/…` was measured on rows that no candidate was fitted on.

# %%
columns = {
    "tags.mlflow.runName": "run",
    "tags.malearn.trigger": "trigger",
    "metrics.test/mae": "MAE, s",
    "metrics.test/median_ape": "median error",
    "metrics.test/pairwise_accuracy": "pairs right",
    "tags.malearn.version": "version",
    "tags.malearn.promote": "passes",
}
runs = mlflow.search_runs(experiment_names=[NAME], order_by=["attributes.start_time DESC"])
print(runs[list(columns)].rename(columns=columns).round(3).to_string(index=False))

# %% [markdown]
# The best of all candidates ever; and the plots of the last retraining, with its explanations:

# %%
candidates = runs[runs["tags.mlflow.parentRunId"].notna()]
best = candidates.sort_values("metrics.test/mae").iloc[0]
client = mlflow.MlflowClient()
print(best["tags.mlflow.runName"])
last = runs[runs["tags.mlflow.parentRunId"].isna()].iloc[0]
for folder in ("plots", "explanations"):
    print([file.path for file in client.list_artifacts(last.run_id, folder)])

# %% [markdown]
# ## What serves, and why

# %%
version = client.get_model_version_by_alias(NAME, "Production")
print(f"Version {version.version}\n{version.description}")

# %% [markdown]
# ## Asking it
#
# A version is a `pyfunc` that is called by the names of its columns. `function` is required, what
# is left out or NaN is missing, and the history of each function is inside the model.

# %%
model = mlflow.pyfunc.load_model(f"models:/{NAME}@Production")
print(model.metadata.signature)

# %%
dataset = Dataset.open(home, types[TOOL])
rows = matrix.build(types[TOOL], dataset.read(version=dataset.version))
newest = rows.executions[-5:]
names = types[TOOL].feature_names
asked = pd.DataFrame([matrix.known_before(e) for e in newest], columns=list(names))
asked.insert(0, "function", [e.function for e in newest])
answers = model.predict(asked)
for execution, seconds in zip(newest, answers["seconds"], strict=True):
    print(f"{execution.function}: {seconds:.2f} s predicted, {execution.seconds:.2f} s taken")

# %% [markdown]
# What if the newest task had had twice of its first feature, all else being equal?

# %%
what_if = pd.concat([asked[-1:], asked[-1:]], ignore_index=True)
what_if.loc[1, names[0]] *= 2
once, twice = model.predict(what_if)["seconds"]
first, second = what_if[names[0]]
print(f"{names[0]} {first:g}: {once:.2f} s; {second:g}: {twice:.2f} s")

# %% [markdown]
# ## Trying something
#
# Cut by time, never at random; the baselines saw what a model sees. What does the history bring?

# %%
older, newest = rows.split(0.2)
scores = {
    name: metrics.score(newest.seconds, predict(rows.executions, types)[-len(newest) :])
    for name, predict in baselines.BASELINES.items()
}
own = regressor.fit("linear", older)
scores["linear"] = metrics.score(newest.seconds, own.seconds(newest.inputs))
for name, score in sorted(scores.items(), key=lambda item: item[1].mae):
    print(f"{name:16} MAE {score.mae:7.3f} s, median error {score.median_ape:6.1%}")
print({name: round(share, 2) for name, share in list(own.importance.items())[:5]})
