require denoised.inc

# This layer lies in the project's own tree and builds the tree that it lies in: no network, no tag, no revision to keep
# in step. A layer copied elsewhere sets DENOISED_TREE to a checkout. Every entry goes to the default ${S}, whose place
# differs between series.
DENOISED_TREE ?= "${THISDIR}/../../../.."
FILESEXTRAPATHS:prepend := "${DENOISED_TREE}:"
SRC_URI = "\
    file://LICENSE;subdir=${BP} \
    file://README.md;subdir=${BP} \
    file://__init__.py;subdir=${BP} \
    file://__main__.py;subdir=${BP} \
    file://pyproject.toml;subdir=${BP} \
    file://setup.py;subdir=${BP} \
    file://config;subdir=${BP} \
    file://daemon;subdir=${BP} \
    file://demo;subdir=${BP} \
    file://engines;subdir=${BP} \
    file://models;subdir=${BP} \
    file://plugins;subdir=${BP} \
    file://systemd;subdir=${BP} \
    file://training;subdir=${BP} \
"
