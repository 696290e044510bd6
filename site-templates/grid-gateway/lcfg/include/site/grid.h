/* What the grid's services have in common: trust anchors, the users' accounts, and a certificate of the node's own. */
#ifndef SITE_GRID_H
#define SITE_GRID_H

#include <site/base.h>
#include <site/disk.h>
#include <site/network.h>

profile.packages    @base.pkgs NODE_KERNEL=*

/* Whose homes are on all nodes, and where their files are on the storage element. */
#define GRID_GROUP      griduser
#define GRID_STORAGE    /storage
gridusers.group         GRID_GROUP

/* The site's programs run in this order, after all that comes with the agent. */
!profile.components mADD(grid credentials gridca gridusers)

#endif
