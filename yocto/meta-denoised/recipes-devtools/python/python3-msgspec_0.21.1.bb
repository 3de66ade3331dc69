require python3-msgspec.inc

SRC_URI[sha256sum] = "2313508e394b0d208f8f56892ca9b2799e2561329de9763b19619595a6c0f72c"

inherit python_setuptools_build_meta

DEPENDS += "python3-setuptools-scm-native"

# setuptools-scm would ask git for the version, but this is a release without a history.
export SETUPTOOLS_SCM_PRETEND_VERSION = "${PV}"

python () {
    if "scarthgap" in d.getVar("LAYERSERIES_CORENAMES").split():
        raise bb.parse.SkipRecipe("needs setuptools 80, scarthgap has 69: version 0.19.0 is for it")
}
