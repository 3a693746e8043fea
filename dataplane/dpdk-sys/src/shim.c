/* Plain functions over DPDK's macros, inline functions and structures: the ABI that src/lib.rs declares.
 *
 * Rust cannot call inline functions, and DPDK's structures change from release to release. What this file exports does
 * not: numbers, pointers, and the structures below, each of which lib.rs has a mirror of. Whatever happens for each frame
 * takes a whole burst at a time. Written for DPDK 22.11 to 24.11.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_version.h>

#if RTE_VERSION < RTE_VERSION_NUM(22, 11, 0, 0)
#error "libdpdk 22.11 or newer is needed"
#endif

/* Entries of the largest table from hash to queue that is written. */
#define DPDK_TABLE_MOST 4096

/* The half of an mbuf that the packet path reads and writes itself: `Mbuf` of lib.rs. */
_Static_assert(offsetof(struct rte_mbuf, buf_addr) == 0, "mbuf layout");
_Static_assert(offsetof(struct rte_mbuf, data_off) == 16, "mbuf layout");
_Static_assert(offsetof(struct rte_mbuf, refcnt) == 18, "mbuf layout");
_Static_assert(offsetof(struct rte_mbuf, nb_segs) == 20, "mbuf layout");
_Static_assert(offsetof(struct rte_mbuf, port) == 22, "mbuf layout");
_Static_assert(offsetof(struct rte_mbuf, ol_flags) == 24, "mbuf layout");
_Static_assert(offsetof(struct rte_mbuf, packet_type) == 32, "mbuf layout");
_Static_assert(offsetof(struct rte_mbuf, pkt_len) == 36, "mbuf layout");
_Static_assert(offsetof(struct rte_mbuf, data_len) == 40, "mbuf layout");
_Static_assert(offsetof(struct rte_mbuf, vlan_tci) == 42, "mbuf layout");
_Static_assert(offsetof(struct rte_mbuf, hash) == 44, "mbuf layout");
_Static_assert(offsetof(struct rte_mbuf, buf_len) == 54, "mbuf layout");
_Static_assert(offsetof(struct rte_mbuf, pool) == 56, "mbuf layout");
_Static_assert(sizeof(struct rte_mbuf) == 128, "mbuf layout");
_Static_assert(sizeof(((struct rte_mbuf *)0)->data_off) == 2, "mbuf layout");
_Static_assert(sizeof(((struct rte_mbuf *)0)->pkt_len) == 4, "mbuf layout");
_Static_assert(sizeof(((struct rte_mbuf *)0)->data_len) == 2, "mbuf layout");
_Static_assert(sizeof(((struct rte_mbuf *)0)->buf_len) == 2, "mbuf layout");
_Static_assert(sizeof(((struct rte_mbuf *)0)->nb_segs) == 2, "mbuf layout");
_Static_assert(RTE_PKTMBUF_HEADROOM == 128, "the headroom that lib.rs states");
_Static_assert(RTE_MBUF_F_EXTERNAL == (1ULL << 61), "the flag that lib.rs states");
_Static_assert(RTE_MBUF_F_INDIRECT == (1ULL << 62), "the flag that lib.rs states");
_Static_assert(RTE_MBUF_F_RX_IP_CKSUM_GOOD == (1ULL << 7), "the flag that lib.rs states");
_Static_assert(RTE_MBUF_F_RX_IP_CKSUM_MASK == ((1ULL << 7) | (1ULL << 4)), "the flags that lib.rs states");
_Static_assert(RTE_ETH_RSS_NONFRAG_IPV4_TCP == (1ULL << 4), "the flag that lib.rs states");

/* What DPDK logs is kept, not printed: its last lines explain an error. */

#define KEPT 8192
static char kept[KEPT];
static size_t kept_len;
static pthread_mutex_t kept_lock = PTHREAD_MUTEX_INITIALIZER;

static ssize_t keep(void *cookie, const char *text, size_t len)
{
	size_t take = len > KEPT ? KEPT : len;

	(void)cookie;
	pthread_mutex_lock(&kept_lock);
	if (kept_len + take > KEPT) {
		size_t forget = kept_len + take - KEPT;

		memmove(kept, kept + forget, kept_len - forget);
		kept_len -= forget;
	}
	memcpy(kept + kept_len, text + (len - take), take);
	kept_len += take;
	pthread_mutex_unlock(&kept_lock);
	return (ssize_t)len;
}

/* Keeps what is logged from now on. Returns 0, or -1 without memory. */
int dpdk_log_keep(void)
{
	cookie_io_functions_t functions = {.write = keep};
	FILE *file = fopencookie(NULL, "w", functions);

	if (file == NULL)
		return -1;
	setvbuf(file, NULL, _IOLBF, 0);
	return rte_openlog_stream(file);
}

/* Copies the last bytes of what was logged to `out` and returns how many. `forget` empties it. */
size_t dpdk_log_tail(char *out, size_t room, int forget)
{
	size_t take;

	pthread_mutex_lock(&kept_lock);
	take = kept_len < room ? kept_len : room;
	memcpy(out, kept + (kept_len - take), take);
	if (forget)
		kept_len = 0;
	pthread_mutex_unlock(&kept_lock);
	return take;
}

void dpdk_log_level(uint32_t level)
{
	rte_log_set_global_level(level);
}

const char *dpdk_version(void)
{
	return rte_version();
}

int dpdk_errno(void)
{
	return rte_errno;
}

const char *dpdk_errno_text(int number)
{
	return rte_strerror(number < 0 ? -number : number);
}

int dpdk_eal_init(int argc, char **argv)
{
	return rte_eal_init(argc, argv);
}

int dpdk_eal_cleanup(void)
{
	return rte_eal_cleanup();
}

/* Makes this thread one that DPDK knows. 0 also if it is one already; else the negative error number. */
int dpdk_thread_register(void)
{
	if (rte_lcore_id() != LCORE_ID_ANY)
		return 0;
	return rte_thread_register() == 0 ? 0 : -rte_errno;
}

void dpdk_thread_unregister(void)
{
	rte_thread_unregister();
}

/* Devices */

uint16_t dpdk_dev_count(void)
{
	return rte_eth_dev_count_avail();
}

/* The number of the device of this name, or the negative error number. */
int dpdk_dev_by_name(const char *name)
{
	uint16_t port;
	int error = rte_eth_dev_get_port_by_name(name, &port);

	return error == 0 ? port : error;
}

int dpdk_dev_name(uint16_t port, char name[64])
{
	_Static_assert(RTE_ETH_NAME_MAX_LEN <= 64, "room for a name");
	return rte_eth_dev_get_name_by_port(port, name);
}

struct dpdk_dev_info {
	char driver[32];
	uint64_t rss_offloads;
	uint64_t rx_offloads;
	uint64_t tx_offloads;
	int32_t socket;
	uint16_t max_rx_queues;
	uint16_t max_tx_queues;
	uint16_t min_mtu;
	uint16_t max_mtu;
	uint16_t reta_size;
	uint16_t hash_key_size;
};
_Static_assert(sizeof(struct dpdk_dev_info) == 72, "lib.rs has the same structure");

int dpdk_dev_info(uint16_t port, struct dpdk_dev_info *out)
{
	struct rte_eth_dev_info info;
	uint32_t most;
	int error = rte_eth_dev_info_get(port, &info);

	if (error != 0)
		return error;
	/* As rte_eth_dev_configure reckons: a driver that knows no largest MTU knows a largest frame, of 18 bytes more. */
	most = info.max_mtu;
	if (most == UINT16_MAX && info.max_rx_pktlen > 18 && info.max_rx_pktlen - 18 < most)
		most = info.max_rx_pktlen - 18;
	memset(out, 0, sizeof(*out));
	snprintf(out->driver, sizeof(out->driver), "%s", info.driver_name);
	out->rss_offloads = info.flow_type_rss_offloads;
	out->rx_offloads = info.rx_offload_capa;
	out->tx_offloads = info.tx_offload_capa;
	out->socket = rte_eth_dev_socket_id(port);
	out->max_rx_queues = info.max_rx_queues;
	out->max_tx_queues = info.max_tx_queues;
	out->min_mtu = info.min_mtu;
	out->max_mtu = most;
	out->reta_size = info.reta_size;
	out->hash_key_size = info.hash_key_size;
	return 0;
}

/* As many queues each way. `rss` says what is hashed to choose one; 0 for no choice. `key` may be NULL: the driver's own.
 * Drivers keep the pointer. */
int dpdk_dev_configure(uint16_t port, uint16_t queues, uint16_t mtu, uint64_t rss, const uint8_t *key,
		       uint8_t key_len)
{
	struct rte_eth_dev_info info;
	struct rte_eth_conf conf;

	memset(&conf, 0, sizeof(conf));
	conf.rxmode.mtu = mtu;
	if (rte_eth_dev_info_get(port, &info) != 0)
		memset(&info, 0, sizeof(info));
	/* A device that can tells of each IPv4 header whether its checksum is right. */
	conf.rxmode.offloads = info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_IPV4_CKSUM;
	if (rss != 0) {
		conf.rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
		conf.rx_adv_conf.rss_conf.rss_hf = rss;
		conf.rx_adv_conf.rss_conf.rss_key = (uint8_t *)(uintptr_t)key;
		conf.rx_adv_conf.rss_conf.rss_key_len = key == NULL ? 0 : key_len;
	}
#if RTE_VERSION >= RTE_VERSION_NUM(23, 11, 0, 0)
	if (key != NULL && (info.rss_algo_capa & RTE_ETH_HASH_ALGO_CAPA_MASK(TOEPLITZ)) != 0)
		conf.rx_adv_conf.rss_conf.algorithm = RTE_ETH_HASH_FUNCTION_TOEPLITZ;
#endif
	return rte_eth_dev_configure(port, queues, queues, &conf);
}

/* What the hash is to be of: addresses, with ports where there are any. */
uint64_t dpdk_rss_flows(void)
{
	return RTE_ETH_RSS_IP | RTE_ETH_RSS_TCP | RTE_ETH_RSS_UDP | RTE_ETH_RSS_SCTP;
}

/* Copies the key in force. */
int dpdk_rss_key_get(uint16_t port, uint8_t *key, uint8_t key_len)
{
	struct rte_eth_rss_conf conf;

	memset(&conf, 0, sizeof(conf));
	conf.rss_key = key;
	conf.rss_key_len = key_len;
	return rte_eth_dev_rss_hash_conf_get(port, &conf);
}

int dpdk_rss_key_set(uint16_t port, uint64_t rss, const uint8_t *key, uint8_t key_len)
{
	struct rte_eth_rss_conf conf;

	memset(&conf, 0, sizeof(conf));
	conf.rss_hf = rss;
	conf.rss_key = (uint8_t *)(uintptr_t)key;
	conf.rss_key_len = key_len;
	return rte_eth_dev_rss_hash_update(port, &conf);
}

/* The table from the low bits of the hash to queues, of `size` entries, which is what the device has. */
#define GROUPS (DPDK_TABLE_MOST / RTE_ETH_RETA_GROUP_SIZE)

int dpdk_rss_table_set(uint16_t port, const uint16_t *queues, uint16_t size)
{
	struct rte_eth_rss_reta_entry64 groups[GROUPS];
	uint16_t i;

	if (size > DPDK_TABLE_MOST)
		return -EINVAL;
	for (i = 0; i < size; i++) {
		groups[i / RTE_ETH_RETA_GROUP_SIZE].mask = UINT64_MAX;
		groups[i / RTE_ETH_RETA_GROUP_SIZE].reta[i % RTE_ETH_RETA_GROUP_SIZE] = queues[i];
	}
	return rte_eth_dev_rss_reta_update(port, groups, size);
}

int dpdk_rss_table_get(uint16_t port, uint16_t *queues, uint16_t size)
{
	struct rte_eth_rss_reta_entry64 groups[GROUPS];
	uint16_t i;
	int error;

	if (size > DPDK_TABLE_MOST)
		return -EINVAL;
	memset(groups, 0, sizeof(groups));
	for (i = 0; i < GROUPS; i++)
		groups[i].mask = UINT64_MAX;
	error = rte_eth_dev_rss_reta_query(port, groups, size);
	for (i = 0; i < size; i++)
		queues[i] = groups[i / RTE_ETH_RETA_GROUP_SIZE].reta[i % RTE_ETH_RETA_GROUP_SIZE];
	return error;
}

int dpdk_dev_adjust_slots(uint16_t port, uint16_t *rx, uint16_t *tx)
{
	return rte_eth_dev_adjust_nb_rx_tx_desc(port, rx, tx);
}

int dpdk_rx_queue_setup(uint16_t port, uint16_t queue, uint16_t slots, int32_t socket, struct rte_mempool *pool)
{
	return rte_eth_rx_queue_setup(port, queue, slots, (unsigned int)socket, NULL, pool);
}

int dpdk_tx_queue_setup(uint16_t port, uint16_t queue, uint16_t slots, int32_t socket)
{
	return rte_eth_tx_queue_setup(port, queue, slots, (unsigned int)socket, NULL);
}

int dpdk_dev_start(uint16_t port)
{
	return rte_eth_dev_start(port);
}

int dpdk_dev_stop(uint16_t port)
{
	return rte_eth_dev_stop(port);
}

int dpdk_dev_close(uint16_t port)
{
	return rte_eth_dev_close(port);
}

/* 1 if there is a link, 0 if not, or the negative error number. `mbps` may be UINT32_MAX: not known. */
int dpdk_link(uint16_t port, uint32_t *mbps)
{
	struct rte_eth_link link;
	int error;

	memset(&link, 0, sizeof(link));
	error = rte_eth_link_get_nowait(port, &link);
	if (error != 0)
		return error;
	*mbps = link.link_speed;
	return link.link_status == RTE_ETH_LINK_UP;
}

struct dpdk_stats {
	uint64_t rx_packets;
	uint64_t tx_packets;
	uint64_t rx_bytes;
	uint64_t tx_bytes;
	uint64_t rx_missed;
	uint64_t rx_errors;
	uint64_t tx_errors;
	uint64_t rx_no_mbuf;
};

int dpdk_stats(uint16_t port, struct dpdk_stats *out)
{
	struct rte_eth_stats stats;
	int error;

	memset(&stats, 0, sizeof(stats));
	error = rte_eth_stats_get(port, &stats);
	*out = (struct dpdk_stats){stats.ipackets, stats.opackets, stats.ibytes,  stats.obytes,
				   stats.imissed,  stats.ierrors,  stats.oerrors, stats.rx_nombuf};
	return error;
}

int dpdk_stats_reset(uint16_t port)
{
	return rte_eth_stats_reset(port);
}

/* Writes at most `room` counters, and returns how many there are or the negative error number. */
int dpdk_xstats(uint16_t port, char (*names)[64], uint64_t *values, unsigned int room)
{
	_Static_assert(RTE_ETH_XSTATS_NAME_SIZE == 64, "room for a name");
	static struct rte_eth_xstat_name name_list[1024];
	static struct rte_eth_xstat value_list[1024];
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	int count, i;

	if (room > 1024)
		room = 1024;
	pthread_mutex_lock(&lock);
	count = rte_eth_xstats_get_names(port, name_list, room);
	if (count >= 0 && (unsigned int)count <= room)
		count = rte_eth_xstats_get(port, value_list, room);
	for (i = 0; count >= 0 && (unsigned int)count <= room && i < count; i++) {
		memcpy(names[i], name_list[value_list[i].id].name, 64);
		names[i][63] = 0;
		values[i] = value_list[i].value;
	}
	pthread_mutex_unlock(&lock);
	return count;
}

int dpdk_mac(uint16_t port, uint8_t mac[6])
{
	struct rte_ether_addr address;
	int error = rte_eth_macaddr_get(port, &address);

	if (error == 0)
		memcpy(mac, address.addr_bytes, 6);
	return error;
}

int dpdk_mtu(uint16_t port, uint16_t *mtu)
{
	return rte_eth_dev_get_mtu(port, mtu);
}

int dpdk_mtu_set(uint16_t port, uint16_t mtu)
{
	return rte_eth_dev_set_mtu(port, mtu);
}

int dpdk_promiscuous(uint16_t port, int on)
{
	return on ? rte_eth_promiscuous_enable(port) : rte_eth_promiscuous_disable(port);
}

int dpdk_all_multicast(uint16_t port, int on)
{
	return on ? rte_eth_allmulticast_enable(port) : rte_eth_allmulticast_disable(port);
}

/* Bursts */

uint16_t dpdk_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t room)
{
	return rte_eth_rx_burst(port, queue, frames, room);
}

uint16_t dpdk_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **frames, uint16_t count)
{
	return rte_eth_tx_burst(port, queue, frames, count);
}

/* Frees what waits in a receive ring, 64 frames at most `bursts` times. */
void dpdk_drain(uint16_t port, uint16_t queue, uint16_t bursts)
{
	struct rte_mbuf *frames[64];
	uint16_t got = 64;

	while (bursts-- > 0 && got > 0) {
		got = rte_eth_rx_burst(port, queue, frames, 64);
		rte_pktmbuf_free_bulk(frames, got);
	}
}

/* Buffers */

/* NULL without memory: `dpdk_errno` says why. `room` is without the headroom. */
struct rte_mempool *dpdk_pool_create(const char *name, uint32_t mbufs, uint32_t cache, uint16_t room, int32_t socket)
{
	return rte_pktmbuf_pool_create(name, mbufs, cache, 0, RTE_PKTMBUF_HEADROOM + room, socket);
}

void dpdk_pool_free(struct rte_mempool *pool)
{
	rte_mempool_free(pool);
}

/* Mbufs that are in the pool, not out: exact while no other thread takes or gives any. */
uint32_t dpdk_pool_available(const struct rte_mempool *pool)
{
	return rte_mempool_avail_count(pool);
}

/* 0, or not 0 and none is given. */
int dpdk_alloc_bulk(struct rte_mempool *pool, struct rte_mbuf **frames, uint32_t count)
{
	return rte_pktmbuf_alloc_bulk(pool, frames, count);
}

void dpdk_free_bulk(struct rte_mbuf **frames, uint32_t count)
{
	rte_pktmbuf_free_bulk(frames, count);
}

void dpdk_free(struct rte_mbuf *frame)
{
	rte_pktmbuf_free(frame);
}
