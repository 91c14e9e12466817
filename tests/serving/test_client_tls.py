"""The client over encrypted connections, with certificates made for the test."""

import datetime
import ipaddress
import json
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bivrec_contract.errors import ConfigError
from serving.client import DeadlineExceeded, RecommenderClient, ServerUnavailable, TlsOptions
from serving.process import ServerProcess

NOW = datetime.datetime.now(datetime.UTC)


class Authority:
    """Signs certificates, and writes them and their keys beside each other."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign("authority", self.key, None)
        self.path = directory / "authority.pem"
        self.path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, hosts: tuple[str, ...] = ()) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(name, key, hosts)
        paths = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        paths[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return paths

    def _sign(self, name, key, hosts: tuple[str, ...] | None) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = subject if hosts is None else self.certificate.subject
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - datetime.timedelta(days=1))
            .not_valid_after(NOW + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=hosts is None, path_length=None), True)
        )
        if hosts:
            names = [x509.DNSName(host) for host in hosts if not host[0].isdigit()]
            names += [
                x509.IPAddress(ipaddress.ip_address(host)) for host in hosts if host[0].isdigit()
            ]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
        return builder.sign(self.key, hashes.SHA256())


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("strangers"))


@pytest.fixture
def start_secure(start_proxy, authority):
    def start(hosts: tuple[str, ...] = ("127.0.0.1",), clients: bool = False) -> str:
        certificate, key = authority.issue("server", hosts)
        credentials = grpc.ssl_server_credentials(
            [(key.read_bytes(), certificate.read_bytes())],
            root_certificates=authority.path.read_bytes() if clients else None,
            require_client_auth=clients,
        )
        _, target = start_proxy(credentials)
        return target

    return start


def ask(target: str, **tls) -> int:
    with RecommenderClient(target, timeout=60.0, tls=TlsOptions(**tls)) as client:
        return client.recommend(["item-1"]).model_version


def test_tls(start_secure, authority):
    assert ask(start_secure(), root_certificates=authority.path) == 7


def test_mutual_tls(start_secure, authority):
    target = start_secure(clients=True)
    certificate, key = authority.issue("client")
    assert ask(target, root_certificates=authority.path, certificate=certificate, key=key) == 7
    with pytest.raises(ServerUnavailable):
        ask(target, root_certificates=authority.path)


def test_a_client_of_another_authority_is_turned_away(start_secure, authority, stranger):
    certificate, key = stranger.issue("client")
    with pytest.raises(ServerUnavailable):
        ask(
            start_secure(clients=True),
            root_certificates=authority.path,
            certificate=certificate,
            key=key,
        )


def test_a_server_of_another_authority_is_not_trusted(start_secure, stranger):
    with pytest.raises(ServerUnavailable, match="TlsOptions"):
        ask(start_secure(), root_certificates=stranger.path)


def test_the_name_in_the_certificate_counts(start_secure, authority):
    target = start_secure(hosts=("recommender.shop.example",))
    with pytest.raises(ServerUnavailable):
        ask(target, root_certificates=authority.path)
    named = "recommender.shop.example"
    assert ask(target, root_certificates=authority.path, server_name=named) == 7


def test_plain_text_is_not_answered_by_a_secure_server(start_secure):
    with (
        RecommenderClient(start_secure(), timeout=60.0) as client,
        pytest.raises(ServerUnavailable),
    ):
        client.recommend(["item-1"])


def test_files_that_do_not_fit(authority, tmp_path):
    certificate, key = authority.issue("client")
    (tmp_path / "text").write_text("no certificate")
    for options, text in [
        ({"root_certificates": tmp_path / "absent"}, "root_certificates: cannot read .*absent"),
        ({"root_certificates": tmp_path / "text"}, "is no PEM file"),
        ({"certificate": certificate}, "both a certificate and its key"),
        ({"key": key}, "both a certificate and its key"),
    ]:
        with pytest.raises(ConfigError, match=text):
            ask("localhost:1", **options)


@pytest.mark.slow
def test_the_development_server_with_mutual_tls(authority, base_path, tmp_path):
    certificate, key = authority.issue("server", ("127.0.0.1",))
    config = tmp_path / "ssl.config"
    message = {"server_key": key, "server_cert": certificate, "custom_ca": authority.path}
    lines = [f"{name}: {json.dumps(path.read_text())}" for name, path in message.items()]
    config.write_text("\n".join([*lines, "client_verify: true"]))
    with ServerProcess(base_path, arguments=["--ssl_config_file", str(config)]) as server:
        certificate, key = authority.issue("client")
        tls = {"root_certificates": authority.path, "certificate": certificate, "key": key}
        assert ask(server.target, **tls) == 1
        with pytest.raises(ServerUnavailable):
            ask(server.target, root_certificates=authority.path)
        with (
            RecommenderClient(server.target, timeout=5.0) as client,
            pytest.raises((ServerUnavailable, DeadlineExceeded)),
        ):
            client.status()
