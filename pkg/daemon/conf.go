package daemon

// confTemplate is ceph.conf for a whole cluster on one machine. The aims: small (0.6 GB
// for everything), quick to start (HEALTH_OK in about ten seconds on two cores), quick to
// notice a dead daemon, and never a client that hangs for ever.
const confTemplate = `# Written by holdfast on every start: changes here are lost.
# Settings of your own: ceph --conf {dir}/ceph.conf config set ...
[global]
fsid = {fsid}
mon host = {hosts}
mon initial members = {ids}
public addr = {addr}
cluster addr = {addr}
# a window of its own: clusters side by side on one machine do not meet
ms bind port min = {low}
ms bind port max = {high}
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = {dir}/keys/$name.keyring
run dir = {dir}/run
admin socket = {dir}/run/$name.asok
log file = {dir}/log/$name.log
log flush on exit = true
crash dir = {dir}/crash
# one machine: the OSD is the failure domain
osd crush chooseleaf type = 0
osd pool default size = {size}
osd pool default min size = {minsize}
# few PGs: each costs memory and peering time; pools get theirs when they are made
osd pool default pg num = 8
osd pool default pgp num = 8
osd pool default pg autoscale mode = off
mon max pg per osd = 1000
# one OSD can hold one copy alone; status says so, instead of a health warning without end
mon allow pool size one = {sizeone}
mon warn on pool no redundancy = false
# CVE-2021-20288: every client here is new enough for the secure way
auth allow insecure global id reclaim = false
# a daemon that died is noticed in 5 s instead of 20; on one machine a slow network is no excuse
osd heartbeat interval = 1
osd heartbeat grace = 5
mon osd adjust heartbeat grace = false
mon osd min down reporters = 1
mon osd down out interval = 600
# the defaults batch map changes for up to a second and tick every five: start-up is a chain of such waits
mon tick interval = 1
paxos propose interval = 0.1
paxos min wait = 0.01
mgr tick period = 1
mgr stats period = 1
mgr mon bytes = 8388608
mds beacon interval = 1
mds beacon grace = 8
osd mon report interval = 1
# no chatter with SMART: the files under the OSDs have none
device failure prediction mode = none

[mon]
# the optional modules cost a second each at start; volumes, status and crash are always on
mgr initial modules = iostat
mon data = {dir}/$name
# the store is small, the host's own fill level is watched by holdfast
mon data avail warn = 2
mon data avail crit = 1
mon cluster log file = {dir}/log/cluster.log
mon memory autotune = false
# elections on one machine need no 5 s
mon lease = 2
mon election timeout = 2
mon rocksdb options = write_buffer_size=4194304,compression=kNoCompression,level_compaction_dynamic_level_bytes=true

[mgr]
mgr data = {dir}/$name

[mds]
mds data = {dir}/$name
mds cache memory limit = 134217728
# removal and cloning of subvolumes advance by ticks: 10 s for an empty clone at the default 5 s
mds tick interval = 0.2
# a restarted MDS waits for the clients that it knew; on one machine those that live are
# back within a second, and those that died with it are not worth the default's 45 s
mds reconnect timeout = 10

[osd]
osd data = {dir}/$name
osd objectstore = bluestore
crush location = root=default host={node}
bluestore block create = true
bluestore block size = {osdbytes}
# autotuning cannot go below 896 MiB: off, with a fixed small cache
osd memory target = 939524096
bluestore cache autotune = false
bluestore cache size = 67108864
bluestore rocksdb options = compression=kNoCompression,max_write_buffer_number=4,min_write_buffer_number_to_merge=1,recycle_log_file_num=2,write_buffer_size=4194304,max_background_jobs=2,level0_file_num_compaction_trigger=4,max_bytes_for_level_base=16777216
bluestore throttle bytes = 16777216
bluefs buffered io = true
# fewer threads: several OSDs share the cores
osd op num shards = 2
osd op num threads per shard = 1
# small disks recover quickly and nobody sleeps for them
osd max backfills = 4
osd recovery max active = 8
osd recovery sleep = 0
osd recovery sleep hdd = 0
osd recovery sleep ssd = 0
osd delete sleep = 0
# the load average of a busy small machine would put scrubs off for ever
osd scrub load threshold = 99
# short PG logs: memory
osd min pg log entries = 50
osd max pg log entries = 100
osd class load list = *
osd class default list = *

[client]
# no socket, no log file of each client in the cluster's directory
admin socket =
log file =
rbd cache = true
client quota = true
# a full or dead cluster gives EIO, not a process in D state: a mount that hangs blocks every sync on the machine
rados osd op timeout = 15
rados mon op timeout = 15
`
