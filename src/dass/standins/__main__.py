"""``python -m dass.standins`` trains the stand-ins that lie in the repository again."""

import argparse
import logging

from dass.standins.shipped import train_shipped

argparse.ArgumentParser(
    prog="python -m dass.standins",
    description="Train the stand-ins that lie in the repository again, in some minutes.",
).parse_args()
logging.basicConfig(level=logging.INFO, format="%(message)s")
train_shipped()
