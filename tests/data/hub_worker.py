"""A process in which cards of the hub's datasets are opened. Imports nothing of the hub's itself."""

import json
import multiprocessing
import os
import sys

from benchmark.common.errors import BenchError
from benchmark.data.card import load_card
from benchmark.data.dataset import open_dataset

COLUMNS = {"image": "image", "text": "text", "label": "label", "question": "question", "answer": "answer"}
# Capitals, because what is cached goes by another spelling.
NAME = "clinic/ChestPairs"
CARD = {"classes": ["normal", "benign"]}


class Worker:
    """A process in which cards are opened: a hub's client reads its environment when it is imported."""

    context = multiprocessing.get_context("forkserver")
    # What takes longest to import, none of it the hub's, is imported once.
    context.set_forkserver_preload(["benchmark.data.card", "benchmark.data.dataset"])

    def __init__(self, folder, **environment):
        self.folder = folder
        self.pipe, there = self.context.Pipe()
        self.process = self.context.Process(target=serve, args=(there, folder, environment), daemon=True)
        self.process.start()
        there.close()

    def ask(self, name=NAME, records=None, look=False, **source):
        """What comes of a card: its rows, or the error. records: a name for what is kept of them; look: only whether
        they are found.
        """
        path = self.folder / f"{os.urandom(4).hex()}.yaml"
        source = {"kind": "hub", "name": name, "splits_of": {"train": "train"}, "columns": COLUMNS} | source
        path.write_text(json.dumps({**CARD, "source": source}))
        self.pipe.send((path, None if look else self.folder / "records" / (records or path.stem)))
        return self.pipe.recv()

    def close(self):
        self.pipe.close()
        self.process.join()

    def error(self, *args, **source):
        found = self.ask(*args, **source)
        assert "error" in found, found
        assert "\n" not in found["error"]
        return found["error"]


def serve(pipe, folder, environment):
    for name in [name for name in os.environ if name.startswith(("HF_", "TRANSFORMERS_"))]:
        del os.environ[name]
    os.environ.update(environment, no_proxy="*", HF_DATASETS_DISABLE_PROGRESS_BARS="1")
    os.chdir(folder)
    while True:
        try:
            card, cache = pipe.recv()
        except EOFError:
            return
        pipe.send(opened(card, cache))


def opened(path, cache):
    card = load_card(path)
    answer = {"found": card.source.is_present()}
    if cache is None:
        return answer | {"imported": "datasets" in sys.modules}
    try:
        found = open_dataset(card, cache=cache)
        columns = ("text", "label", "question", "answer")
        answer["fingerprint"] = found.fingerprint
        answer["rows"] = {
            split: [(row["image"].tobytes(), *(row[name] for name in columns)) for row in found.records(split)]
            for split in found.splits()
        }
    except BenchError as error:
        answer["error"] = str(error)
    return answer
