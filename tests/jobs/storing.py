"""A job whose files lie in a store, as its node runs it: `storing.py REQUEST.json STORE`.

The store is a folder, sent to often; the verb trains in one process, so that a test need not wait for a cluster.
"""

import sys
from pathlib import Path

from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.local import LocalFileSystem

from onmodel.core.config import load
from onmodel.jobs import entry
from onmodel.jobs.request import JobRequest

TRAIN = """
import sys
from pathlib import Path
from onmodel.training.config import load_train_config
from onmodel.training.run import train
train(load_train_config(Path(sys.argv[2])), num_workers=0)
"""

if __name__ == "__main__":
    entry.VERB = ("-c", TRAIN)
    entry.INTERVAL_S = 0.1
    store = DirFileSystem(sys.argv[2], LocalFileSystem(auto_mkdir=True))
    store.cachable = False
    sys.exit(entry.run(load(JobRequest, Path(sys.argv[1])), lambda uri: store))
