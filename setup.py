"""Puts configs/ into the wheel, as ssl_suite/configs; all else stands in pyproject.toml."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages(include=["ssl_suite*"]), "ssl_suite.configs"],
    package_dir={"ssl_suite.configs": "configs"},
)
