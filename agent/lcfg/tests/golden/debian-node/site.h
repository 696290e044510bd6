#define SITE_DOMAIN grid.example.org
#define SITE_SERVER 10.0.0.1
#define SITE_ADDRESS 10.0.0.2
#define SITE_MEMORY 1024
#define SITE_MAC0 02:00:00:00:00:01
#define SITE_MAC1 02:00:00:00:00:02
