"""Python without network, for where namespaces are not permitted: nothing can be connected to."""

import errno
import os
import socket

_connect = socket.socket.connect


def _refuse(self, address):
    if self.family == socket.AF_UNIX:
        return _connect(self, address)
    raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))


socket.socket.connect = _refuse
socket.socket.connect_ex = _refuse
