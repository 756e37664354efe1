#!/bin/sh
# In the build of an image: makes the environment /opt/dubstage with the dependencies of some extras of pyproject.toml, at the versions
# of constraints.txt. pip itself stays outside, in /opt/build.
#   charts/images/dependencies.sh EXTRA[,EXTRA...] [REQUIREMENT[,REQUIREMENT...]]
# Each REQUIREMENT is installed last and without its own dependencies.
# From the environment: ACCELERATOR (cpu or cuda), TORCH_INDEX (pip arguments for torch alone), PYTORCH3D (address of a wheel, for
# stages that rasterise on a GPU; the build then installs torch too), PIP_ARGUMENTS (for every pip install).
set -eu
extras=${1:?give the extras of pyproject.toml, such as audio,s3}
separate=${2:-}
accelerator=${ACCELERATOR:-cpu}
folder=$(cd "$(dirname "$0")/../.." && pwd)
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore

python3.11 -m venv /opt/build
python3.11 -m venv --without-pip /opt/dubstage
python3.11 "$folder/charts/images/requirements.py" "$extras" > /tmp/requirements.txt
cp "$folder/constraints.txt" /tmp/constraints.txt
case $accelerator in
    cpu) ;;
    cuda)
        # The same runtime under another name, with CUDA and cuDNN as packages.
        version=$(sed -n 's/^onnxruntime==//p' /tmp/constraints.txt)
        sed -i "s/^onnxruntime[<>=].*/onnxruntime-gpu[cuda,cudnn]==$version/" /tmp/requirements.txt
        ;;
    *)
        echo "ACCELERATOR is cpu or cuda, not '$accelerator'" >&2
        exit 2
        ;;
esac

# A build argument holds several pip arguments in one word, and the shell splits the word.
# shellcheck disable=SC2086
install() {
    /opt/build/bin/pip --quiet --python /opt/dubstage/bin/python install --constraint /tmp/constraints.txt ${PIP_ARGUMENTS:-} "$@"
}
# torch first and by itself, so that TORCH_INDEX serves torch and nothing else.
torch=$(grep '^torch==' /tmp/requirements.txt || true)
[ -z "${PYTORCH3D:-}" ] || torch=$(grep '^torch==' /tmp/constraints.txt)
if [ -n "$torch" ]; then
    # shellcheck disable=SC2086
    install ${TORCH_INDEX:-} "$torch"
fi
install --requirement /tmp/requirements.txt ${PYTORCH3D:+"$PYTORCH3D"}
# shellcheck disable=SC2046  # words of their own
[ -z "$separate" ] || install --no-deps $(echo "$separate" | tr , ' ')
