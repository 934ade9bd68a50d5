#!/usr/bin/env bash
# A real Slurm on loopback, for tests: slurm.sh up DIR | slurm.sh down DIR
# Two nodes of one core (n1, n2) of this host, no authentication, no accounting. Root and Debian's packages are needed.
set -euo pipefail
action=$1 folder=$(mkdir -p "$2" && realpath "$2")
export PATH=/usr/sbin:/sbin:$PATH SLURM_CONF=$folder/slurm.conf
port=${PORT:-16817}

up() {
    if ! command -v slurmctld > /dev/null; then
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurmctld slurmd slurm-client > /dev/null
    fi
    mkdir -p "$folder"/{state,bin,spool/n1,spool/n2}
    local host memory
    host=$(hostname -s)
    memory=$(($(slurmd -C | grep -o 'RealMemory=[0-9]*' | cut -d= -f2) * 4 / 10))
    cat > "$SLURM_CONF" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/none
CredType=cred/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2,batch_sched_delay=0
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
ReturnToService=2
MinJobAge=3600
KillWait=5
SlurmdTimeout=10
SlurmctldPort=$port
SlurmctldPidFile=$folder/slurmctld.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdPidFile=$folder/slurmd.%n.pid
SlurmdLogFile=$folder/slurmd.%n.log
SlurmdSpoolDir=$folder/spool/%n
StateSaveLocation=$folder/state
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 1)) CPUs=1 RealMemory=$memory
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((port + 2)) CPUs=1 RealMemory=$memory
CONF
    # submitit asks sacct for the state of its jobs and waits for ever where there is no accounting (README, clusters). This
    # stand-in answers from the controller.
    cat > "$folder/bin/sacct" <<'SACCT'
#!/usr/bin/env bash
echo "JobID|State|NodeList"
scontrol -o show job 2> /dev/null | while read -r line; do
    field() { sed -nE "s/(^|.* )$1=([^ ]*).*/\2/p" <<< "$line"; }
    id=$(field JobId) array=$(field ArrayJobId) task=$(field ArrayTaskId)
    [ -n "$array" ] && id=${array}_$task
    echo "$id|$(field JobState)|$(field NodeList)"
done
SACCT
    chmod +x "$folder/bin/sacct"
    slurmctld -f "$SLURM_CONF"
    for node in n1 n2; do slurmd -N $node -f "$SLURM_CONF"; done
    for _ in $(seq 300); do
        [ "$(sinfo -h -N -o %T 2> /dev/null | grep -c '^idle$')" = 2 ] && return 0
        sleep 0.1
    done
    tail -n 20 "$folder"/*.log >&2
    return 1
}

down() {
    for job in $(squeue -h -o %A 2> /dev/null); do scancel -f "$job"; done
    for _ in $(seq 40); do [ -z "$(squeue -h 2> /dev/null)" ] && break; sleep 0.5; done
    for file in "$folder"/slurmd.*.pid "$folder"/slurmctld.pid; do
        [ -f "$file" ] && kill "$(cat "$file")" 2> /dev/null
    done
    return 0
}

"$action"
