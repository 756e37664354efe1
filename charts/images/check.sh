#!/bin/sh
# Starts the images as a cluster would: read-only root file system, no capability, no new privileges, user 65532; all in one pod of
# podman, so that the gateway finds the stages on localhost. Ends with 0 when every one of them serves. `charts/images/check.sh` runs after `make images`.
#   PODMAN, REGISTRY, VERSION   as for images.sh
#   SECONDS_TO_WAIT             for each image                    120
#   POD_ARGUMENTS               for `podman pod create`, such as --network host
set -eu
cd "$(dirname "$0")/../.."
podman=${PODMAN:-podman}
registry=${REGISTRY:-dubstage}
version=${VERSION:-$(sed -n '/^\[project\]/,/^\[/s/^version = "\(.*\)"/\1/p' pyproject.toml)}
patience=${SECONDS_TO_WAIT:-120}
pod=dubstage-check-$$

trap '$podman pod rm --force --time 5 "$pod" > /dev/null 2>&1 || true' EXIT
# shellcheck disable=SC2086  # words of their own
$podman pod create --name "$pod" ${POD_ARGUMENTS:-} > /dev/null
for name in audio face motion texture render gateway suite triton; do
    # The suite is a gateway too, and the containers of a pod share their ports.
    set --
    [ "$name" != suite ] || set -- --env DUBSTAGE_PORT=50060
    $podman run --detach --pod "$pod" --name "$pod-$name" --read-only --read-only-tmpfs=false --tmpfs /tmp:mode=1777 \
        --cap-drop all --security-opt no-new-privileges --user 65532:65532 --tmpfs /data:mode=1777 \
        --env DUBSTAGE_METRICS_PORT=0 "$@" "$registry/$name:$version" > /dev/null
done
failed=0
for name in audio face motion texture render gateway suite triton; do
    waited=0
    case $name in
        triton) set -- /opt/triton/bin/python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/v2/health/live'); print('LIVE')" ;;
        *) set -- /opt/dubstage/bin/python -m services.common.server.health_check ;;
    esac
    until answer=$($podman exec "$pod-$name" "$@" 2> /dev/null); do
        waited=$((waited + 1))
        if [ "$waited" -gt "$patience" ] || [ "$($podman inspect --format '{{.State.Running}}' "$pod-$name")" != true ]; then
            answer=FAILED
            failed=1
            $podman logs "$pod-$name" 2>&1 | tail -20 >&2
            break
        fi
        sleep 1
    done
    facts=$($podman inspect --format 'user {{.Config.User}}, read-only {{.HostConfig.ReadonlyRootfs}}, capabilities {{.EffectiveCaps}}' "$pod-$name")
    echo "$name: $answer ($facts)"
done
exit "$failed"
