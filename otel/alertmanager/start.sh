#!/bin/sh
# Starts Alertmanager with alertmanager.yml and the addresses that the environment has for its receivers:
#
#   sh start.sh alertmanager.yml PROGRAM [ARGUMENT...]
#
# For each receiver (ON_CALL, WORKING_HOURS, TEAMS), any of
#
#   ON_CALL_WEBHOOK_URL       posts Alertmanager's JSON
#   ON_CALL_SLACK_URL         an incoming webhook of Slack; TEAMS posts to the channel #llm-TEAM
#   ON_CALL_PAGERDUTY_KEY     the routing key of PagerDuty's Events API v2
#
# and the same with _FILE for the path of a file that holds it, such as a Docker or Kubernetes secret. What Alertmanager
# then reads is alertmanager.yml in RENDERED_FOLDER (default: /tmp), for this user's eyes alone.
set -eu
umask 077

config=$1
shift
rendered=${RENDERED_FOLDER:-/tmp}/alertmanager.yml

value() { # value NAME: of the variable NAME, or the content of the file that NAME_FILE names; as a YAML string
    eval "text=\${$1:-}; file=\${$1_FILE:-}"
    if [ -n "$file" ]; then text=$(cat "$file"); fi
    if [ -n "$text" ]; then printf "'%s'" "$(printf '%s' "$text" | sed "s/'/''/g")"; fi
}

addresses() { # addresses PREFIX CHANNEL: the integrations of one receiver
    url=$(value "$1_WEBHOOK_URL")
    if [ -n "$url" ]; then
        printf '    webhook_configs:\n      - url: %s\n        send_resolved: true\n' "$url"
    fi
    url=$(value "$1_SLACK_URL")
    if [ -n "$url" ]; then
        printf '    slack_configs:\n      - api_url: %s\n        send_resolved: true\n' "$url"
        if [ -n "$2" ]; then printf "        channel: '%s'\n" "$2"; fi
        cat <<'SLACK'
        title: '{{ .Status | toUpper }}: {{ .CommonAnnotations.summary }}'
        text: '{{ range .Alerts }}{{ .Annotations.description }} <{{ .Annotations.runbook_url }}|What to do>{{ "\n" }}{{ end }}'
SLACK
    fi
    key=$(value "$1_PAGERDUTY_KEY")
    if [ -n "$key" ]; then
        printf '    pagerduty_configs:\n      - routing_key: %s\n' "$key"
        cat <<'PAGERDUTY'
        severity: '{{ .CommonLabels.severity }}'
        description: '{{ .CommonAnnotations.summary }}'
        details: {runbook: '{{ .CommonAnnotations.runbook_url }}', what: '{{ .CommonAnnotations.description }}'}
PAGERDUTY
    fi
}

rm -f "$rendered"
while IFS= read -r line; do
    printf '%s\n' "$line"
    case $line in
        '  - name: on-call') addresses ON_CALL '' ;;
        '  - name: working-hours') addresses WORKING_HOURS '' ;;
        '  - name: teams') addresses TEAMS '#llm-{{ .CommonLabels.team }}' ;;
    esac
done <"$config" >"$rendered"

exec "$@" "--config.file=$rendered"
