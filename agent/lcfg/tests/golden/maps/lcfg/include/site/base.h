profile.domain      grid.example.org
profile.components  profile network hosts slurm
profile.packages    a=*
network.interfaces  eth0
