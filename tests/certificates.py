"""Certificates for tests, made by trustme for each run."""

import datetime
import ssl

import trustme

from avtomatika_worker.transport.tls import TlsFiles


class Authority:
    """A CA, and what it issues."""

    def __init__(self):
        self.ca = trustme.CA()

    def server(self, *names, clients=None, expired=False):
        """Return the context of a server for ``names``; ``clients`` is who issues the clients' certificates."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.renew(context, *names, expired=expired)
        if clients is not None:
            clients.ca.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def renew(self, context, *names, expired=False):
        yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
        until = {"not_after": yesterday, "not_before": yesterday - datetime.timedelta(days=9)} if expired else {}
        self.ca.issue_cert(*(names or ("127.0.0.1", "localhost")), **until).configure_cert(context)

    def write_ca(self, path, *others):
        path.write_bytes(b"".join(each.ca.cert_pem.bytes() for each in (self, *others)))
        return path

    def write_client(self, directory, name):
        """Write the certificate and key of the worker ``name``; return their paths."""
        issued = self.ca.issue_cert(name, common_name=name)
        cert, key = directory / "client.pem", directory / "client-key.pem"
        cert.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
        key.write_bytes(issued.private_key_pem.bytes())
        return cert, key

    def client_files(self, directory, name):
        """Return the TLS files of the worker ``name``, which trusts this CA."""
        cert, key = self.write_client(directory, name)
        return TlsFiles(self.write_ca(directory / "ca.pem"), cert, key)
