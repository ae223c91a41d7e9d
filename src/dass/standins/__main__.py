"""``python -m dass.standins`` trains the stand-ins that lie in the repository anew."""

import logging

from dass.standins.shipped import train_shipped

logging.basicConfig(level=logging.INFO, format="%(message)s")
train_shipped()
